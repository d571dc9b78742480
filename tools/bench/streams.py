#!/usr/bin/env python3
"""How many live streams at a time: before the p99 of (result time - audio time) passes one token period.

    tools/bench/streams.py --threads 2 --json streams.json
    tools/bench/streams.py --config 80m --device cuda --dtype bfloat16 --most 16384 --json streams.json

B streams of noise through one engine with B slots: a chunk of each arrives as often as it lasts, at a random phase, which the stream had
when it joined. A chunk's audio time is when its last sample has arrived, its result time when the step that decoded it has returned; all
that arrive in a turn count. B is doubled until the median of the turns' p99 passes the limit, then bisected until the least that failed is
within ``--resolution`` of the most that held. A row is a B that was tried:

    group        slots that a step decodes
    p50, p99     milliseconds from audio time to result time: median of the turns, least and most
    step         milliseconds
    ready        rows that a step decodes, on average
    busy         share of the time in which the engine was pushed to or stepped

Where the time goes is measured in one more turn, in percent of its seconds: pushes; ``take``, chunks out of the ring; ``encoder``, with
frontend and adapter; ``search``, with decoder and interleaver; ``deliver``, what else a step does: the copies to and from the device, and
the streams' words. Its clock reads cost microseconds a step on a CPU; on an accelerator each waits until all is done, which takes some of
the speed, so that no other turn has them. Of a step that is captured and replayed as a whole, encoder and search are in ``deliver``:
``--profile`` tells them apart.

Two limits are printed first: how many streams' keys and values this machine reads beside the weights, and for how many it has the
arithmetic; at the end, how much of them was reached. ``digits`` is the bundle that comes with the toolkit, which says nothing to noise, so
that neither tokens nor words are in its numbers; 80m has random weights, and says 4 tokens a second. The engine does not isolate streams
from each other's errors (``isolates=False``), which would copy the states of those that each step decodes.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import _measure
import numpy as np
import torch
from _models import TOKENS_A_SECOND, Paced, build, paced, parameters, weight_bytes

from reallm.bundle import load, published
from reallm.errors import InputError, at_least
from reallm.layers.int8_linear import with_int8_weights
from reallm.protocols import ChunkSpec
from reallm.searchers.greedy import GreedySearcher
from reallm.searchers.speculative_greedy import SpeculativeGreedySearcher
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.engine import Engine
from reallm.streaming.state import tensors


def main() -> None:
    parser = _measure.parser(__doc__, repeats=3, configs=("digits", "80m", "tiny"), profiles=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn that a B is tried")
    parser.add_argument(
        "--warm-up",
        type=float,
        help="seconds of audio before, pushed as fast as the engine takes them; default: as many as fill all windows",
    )
    parser.add_argument("--least", type=int, default=1, help="the first B")
    parser.add_argument("--most", type=int, default=4096, help="the last B")
    parser.add_argument("--group", type=int, help="slots of the engine that are decoded together; default: as the engine has it")
    parser.add_argument("--chunk", type=int, metavar="FRAMES", help="chunk size, encoder frames; default: the system's own")
    parser.add_argument("--search", default="greedy", choices=["greedy", "speculative"], help="greedy: one position a pass of the decoder")
    parser.add_argument("--int8", action="store_true", help="int8 weights, on a processor")
    parser.add_argument("--compiled", action="store_true", help="compiled layers, on a processor; they compute in one thread")
    parser.add_argument("--positions", type=int, help="of the decoder in a step, see GreedySearcher; default: until all rows are done")
    parser.add_argument("--resolution", type=float, default=0.1, help="between the B that holds and the one that fails, as a share of it")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    positions = 1 if arguments.positions is None else arguments.positions
    at_least(1, **{"--least": arguments.least, "--most": arguments.most, "--positions": positions})
    if not 0 < arguments.resolution < 1:
        raise InputError(f"--resolution {arguments.resolution}: between 0 and 1")
    system = system_of(arguments)
    chunk = system.chunk_samples / system.sample_rate
    if arguments.seconds < 2 * chunk:
        raise InputError(f"--seconds {arguments.seconds}: at least two chunks, {2 * chunk:g} s")
    if arguments.clock != "wall":
        raise InputError(f"--clock {arguments.clock}: live streams are late by the clock on the wall, leave it out")
    period = system.period_samples / system.sample_rate
    report.note(period_ms=1000 * period, chunk_ms=1000 * chunk)
    most = limits(system, arguments, report)
    holds, fails = bisect(
        lambda batch: try_streams(system, batch, arguments, report) <= period, arguments.least, arguments.most, arguments.resolution
    )
    report.note(streams=holds, streams_that_are_too_many=fails)
    report.note(**{f"percent_of_{name}": 100 * holds / limit for name, limit in most.items() if limit})
    if arguments.profile is not None:
        live = LiveStreams(system, max(1, holds), arguments)
        _measure.profile(arguments, {f"{live.batch} streams": lambda: live.turn(arguments.seconds)})


def system_of(arguments: argparse.Namespace) -> Any:
    """What the streams are heard by: the digits as they are, and random weights made to say 4 tokens a second."""
    digits = arguments.config == "digits"
    system: Any = load(published()) if digits else build(arguments.config)
    system.to(arguments.device, getattr(torch, arguments.dtype)).eval()
    if arguments.chunk is not None:
        at_least(1, **{"--chunk": arguments.chunk})
        system.encoder.chunk = ChunkSpec(arguments.chunk, system.encoder.chunk.left)
    kept = {"max_symbols": system.searcher.max_symbols, "blank_penalty": system.searcher.blank_penalty, "positions": arguments.positions}
    if arguments.search == "speculative":
        system.searcher = SpeculativeGreedySearcher(system.encoder.chunk.size // system.adapter.stride + 1, **kept)
    else:
        system.searcher = GreedySearcher(**kept)
    system = with_int8_weights(system) if arguments.int8 else system
    system = with_compiled_layers(system) if arguments.compiled else system
    return system if digits else paced(system)


def bisect(holds: Callable[[int], bool], least: int, most: int, resolution: float) -> tuple[int, int | None]:
    """The most streams found that hold (0 = none), and the fewest that do not (None = all that were tried do)."""
    best, failed, trial = 0, None, least
    while True:
        if holds(trial):
            best = trial
        else:
            failed = trial
        if failed is None:
            if best >= most:
                return best, None
            trial = min(2 * best, most)
        elif failed - best <= max(1, resolution * failed):
            return best, failed
        else:
            trial = (best + failed) // 2


def limits(system: Any, arguments: argparse.Namespace, report: _measure.Report) -> dict[str, float]:
    """How many streams this machine has the bandwidth and the arithmetic for, if all of a chunk is one step.

    The arithmetic is that of products in ``--dtype``, of int8 weights too.
    """
    dtype = getattr(torch, arguments.dtype)
    bandwidth, arithmetic = _measure.bandwidth(arguments.device), _measure.arithmetic(arguments.device, dtype)
    frames, chunks = system.sample_rate / system.frame_samples, system.sample_rate / system.chunk_samples
    positions = system.sample_rate / system.period_samples + TOKENS_A_SECOND
    encoder, decoder = weight_bytes(system.encoder, system.adapter), weight_bytes(system.decoder)
    products = frames * (weights(system.encoder) + weights(system.adapter)) + positions * weights(system.decoder)
    state = system.decoder.init_state(1, "meta", dtype)
    ring = sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))
    left = max(0.0, 1 - (chunks * encoder + positions * decoder) / bandwidth)  # of each second, when the weights are read
    most = {
        "streams_by_bandwidth": left * bandwidth / (positions * ring),
        "streams_by_arithmetic": arithmetic / (2 * products),
    }
    report.note(**most, bandwidth_gb_a_second=bandwidth / 1e9, arithmetic_gflop_a_second=arithmetic / 1e9)
    return most


def weights(module: torch.nn.Module) -> int:
    """Of products, one a row: all but embeddings."""
    return parameters(module) - sum(part.weight.numel() for part in module.modules() if isinstance(part, torch.nn.Embedding))


def filling(system: Any) -> float:
    """Seconds of audio after which the windows of encoder and decoder are full."""
    said = TOKENS_A_SECOND if isinstance(system.decoder, Paced) else 0.0  # a trained model says nothing to noise
    decoder = getattr(system.decoder, "decoder", system.decoder)
    periods = decoder.window / (system.sample_rate / system.period_samples + said)
    return max(periods, system.encoder.chunk.left * system.frame_samples / system.sample_rate)


class LiveStreams:
    """Streams of noise in an engine whose slots they fill, and which have been heard for some time.

    Args:
        system: in eval mode.
        batch: B.
        arguments: of the command.
    """

    def __init__(self, system: Any, batch: int, arguments: argparse.Namespace) -> None:
        self.system, self.batch, self.device = system, batch, arguments.device
        self.chunk, self.rate = system.chunk_samples, system.sample_rate
        self.length = self.chunk / self.rate
        random = np.random.default_rng(0)
        self.noise = (0.1 * random.standard_normal((17, self.chunk))).astype(np.float32)
        self.phases = random.uniform(0, self.length, batch)  # seconds into each chunk's length at which a chunk of the stream is whole
        self.joins = 0.0
        self.engine = Engine(
            *(system, batch, max(10.0, 4 * self.length)),
            idle_timeout=None,
            isolates=False,
            group=arguments.group,
            clock=lambda: self.joins,
        )
        self.streams = []
        for phase in self.phases.tolist():
            self.joins = phase
            self.streams.append(self.engine.stream())
        self.rows = np.array([stream._row for stream in self.streams])
        warm_up = filling(system) if arguments.warm_up is None else arguments.warm_up
        for number in range(max(1, math.ceil(warm_up / self.length))):
            self.push(np.arange(batch), number)
            self.engine.decode()

    def push(self, chosen: np.ndarray, number: int) -> None:
        """A chunk for each of the chosen streams (N,)."""
        chunks = np.broadcast_to(self.noise[number % 17], (len(chosen), self.chunk))
        self.engine.push_many([self.streams[index] for index in chosen.tolist()], chunks, self.rate)

    def turn(self, seconds: float) -> "Turn":
        """What arrives in ``seconds`` of the clock, until all of it is decoded."""
        arrives = self.phases.copy()  # of each stream's next chunk, after the start
        waits = np.full(self.batch, np.nan)  # when the chunk that the engine has of a stream had arrived; NaN = it has none
        found = Turn()
        begun = time.perf_counter()
        while True:
            now = time.perf_counter() - begun
            come = np.flatnonzero((arrives <= min(now, seconds)) & np.isnan(waits))
            if len(come):
                self.push(come, found.steps)
                waits[come] = arrives[come]
                arrives[come] += self.length
            has = ~np.isnan(waits)
            if not has.any():
                if arrives.min() > seconds:
                    break
                time.sleep(max(0.0, min(0.001, float(arrives.min()) - now)))
                continue
            pushed = time.perf_counter()
            self.engine.step()
            ended = time.perf_counter()
            done = has & ~self.engine._ring.wanting[self.rows]
            found.late += (ended - begun - waits[done]).tolist()
            waits[done] = np.nan
            found.steps, found.decoded = found.steps + 1, found.decoded + int(done.sum())
            found.pushing, found.stepping = found.pushing + pushed - begun - now, found.stepping + ended - pushed
        found.seconds = time.perf_counter() - begun
        return found

    def shares(self, seconds: float) -> dict[str, float]:
        """Percent of a turn's time that each part takes."""
        system, spent = self.system, dict[str, float]()
        parts = {
            "take": [(self.engine._ring, "take")],
            "encoder": [(system.frontend, "step"), (system.encoder, "step"), (system.adapter, "step")],
            "search": [(system.searcher, "step")],
        }
        with timed(parts, _measure.Timer(self.device), spent):
            turn = self.turn(seconds)
        spent = {"push": turn.pushing, **spent, "deliver": turn.stepping - sum(spent.values())}
        return {f"{name}_percent": 100 * taken / turn.seconds for name, taken in spent.items()}


@dataclass
class Turn:
    """What happened in some seconds."""

    late: list[float] = field(default_factory=list)  # seconds from audio time to result time, of each chunk
    steps: int = 0
    decoded: int = 0  # chunks
    pushing: float = 0.0  # seconds
    stepping: float = 0.0
    seconds: float = 0.0  # of the clock


@contextmanager
def timed(parts: Mapping[str, Sequence[tuple[Any, str]]], timer: _measure.Timer, spent: dict[str, float]) -> Iterator[None]:
    """Add up in ``spent`` what the methods (object, name) of each part take while this lasts."""

    def method_of(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            begun = timer.now()
            result = method(*given, **named)
            spent[part] += timer.now() - begun
            return result

        return measured

    for part, methods in parts.items():
        spent[part] = 0.0
        for owner, name in methods:
            setattr(owner, name, method_of(part, getattr(owner, name)))
    try:
        yield
    finally:
        for methods in parts.values():
            for owner, name in methods:
                delattr(owner, name)  # what remains is the class's


def try_streams(system: Any, batch: int, arguments: argparse.Namespace, report: _measure.Report) -> float:
    """The median p99 of result time - audio time, in seconds."""
    live = LiveStreams(system, batch, arguments)
    turns = [live.turn(arguments.seconds) for _ in range(arguments.repeats)]
    p99 = _measure.Spread.of((_measure.percentile(turn.late, 99) for turn in turns), 1000)
    steps = sum(turn.steps for turn in turns)
    report.row(
        streams=batch,
        group=live.engine.group,
        p50_ms=_measure.Spread.of((_measure.percentile(turn.late, 50) for turn in turns), 1000),
        p99_ms=p99,
        step_ms=1000 * sum(turn.stepping for turn in turns) / steps,
        ready=sum(turn.decoded for turn in turns) / steps,
        busy_percent=100 * sum(turn.pushing + turn.stepping for turn in turns) / sum(turn.seconds for turn in turns),
        **live.shares(arguments.seconds),
    )
    live.engine.close()
    return p99.median / 1000


if __name__ == "__main__":
    main()
