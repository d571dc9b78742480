#!/usr/bin/env python3
"""How many live streams at a time: before the p99 of (result time - audio time) passes one token period.

    tools/bench/streams.py --threads 2 --json streams.json
    tools/bench/streams.py --config 80m --device cuda --dtype bfloat16 --most 16384 --json streams.json

B streams of noise, each a chunk behind the clock at a random phase, through one engine with B slots. A chunk's audio time is when its last
sample has arrived, its result time when the step that decoded it has returned. B is doubled until the p99 passes the limit, then bisected
until the least that failed is within ``--resolution`` of the most that held. A row is a B that was tried:

    p50, p99     milliseconds from audio time to result time
    busy         share of the time in which a step ran
    ready        rows that a step decodes, on average

Two limits are printed first: how many streams' keys and values this machine reads beside the weights, and for how many it has the
arithmetic. ``digits`` is the bundle that comes with the toolkit; 80m has random weights, and says 4 tokens a second.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import _measure
import numpy as np
import torch
from _models import TOKENS_A_SECOND, build, paced, weight_bytes

from reallm.bundle import load, published
from reallm.errors import InputError, at_least
from reallm.streaming.engine import Engine
from reallm.streaming.state import tensors


def main() -> None:
    parser = _measure.parser(__doc__, repeats=1, configs=("digits", "80m", "tiny"))
    parser.add_argument("--seconds", type=float, default=10.0, help="that each B is tried, after as long a warm-up as fills the windows")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of audio before, which all streams push as fast as they can")
    parser.add_argument("--least", type=int, default=1, help="the first B")
    parser.add_argument("--most", type=int, default=4096, help="the last B")
    parser.add_argument("--resolution", type=float, default=0.1, help="between the B that holds and the one that fails, as a share of it")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    at_least(1, **{"--least": arguments.least, "--most": arguments.most})
    if not 0 < arguments.resolution < 1:
        raise InputError(f"--resolution {arguments.resolution}: between 0 and 1")
    system: Any = load(published()) if arguments.config == "digits" else paced(build(arguments.config))
    system.to(arguments.device, getattr(torch, arguments.dtype)).eval()
    period = system.period_samples / system.sample_rate
    report.note(period_ms=1000 * period, chunk_ms=1000 * system.chunk_samples / system.sample_rate)
    limits(system, arguments, report)
    holds, fails = bisect(
        lambda batch: try_streams(system, batch, arguments, report) <= period, arguments.least, arguments.most, arguments.resolution
    )
    report.note(streams=holds, streams_that_are_too_many=fails)


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


def limits(system: Any, arguments: argparse.Namespace, report: _measure.Report) -> None:
    """How many streams this machine has the bandwidth and the arithmetic for, if all of a chunk is one step."""
    bandwidth = _measure.bandwidth(arguments.device)
    arithmetic = _measure.arithmetic(arguments.device, getattr(torch, arguments.dtype))
    frames, chunks = system.sample_rate / system.frame_samples, system.sample_rate / system.chunk_samples
    positions = system.sample_rate / system.period_samples + TOKENS_A_SECOND
    encoder, decoder = weight_bytes(system.encoder, system.adapter), weight_bytes(system.decoder)
    size = next(system.parameters()).element_size()
    state = system.decoder.init_state(1, "meta", getattr(torch, arguments.dtype))
    ring = sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))
    left = max(0.0, 1 - (chunks * encoder + positions * decoder) / bandwidth)  # of each second, when the weights are read
    report.note(
        streams_by_bandwidth=left * bandwidth / (positions * ring),
        streams_by_arithmetic=arithmetic / (2 * (frames * encoder + positions * decoder) / size),
        bandwidth_gb_a_second=bandwidth / 1e9,
        arithmetic_gflop_a_second=arithmetic / 1e9,
    )


def try_streams(system: Any, batch: int, arguments: argparse.Namespace, report: _measure.Report) -> float:
    """The p99 of result time - audio time, in seconds."""
    chunk = system.chunk_samples
    length, rate = chunk / system.sample_rate, system.sample_rate
    random = np.random.default_rng(0)
    noise = (0.1 * random.standard_normal((17, chunk))).astype(np.float32)
    engine = Engine(system, batch, queue=max(10.0, 4 * length), idle_timeout=None, isolates=False)
    streams = [engine.stream() for _ in range(batch)]
    for number in range(max(1, round(arguments.warm_up / length))):
        for stream in streams:
            stream.push(noise[number % 17], rate)
        engine.decode()
    arrives = random.uniform(0, length, batch)  # of each stream's next chunk, after the start
    late: list[float] = []
    steps, busy, decoded = 0, 0.0, 0
    begun = time.perf_counter()
    while (now := time.perf_counter() - begun) < arguments.seconds:
        waits: list[float] = []
        for row in np.flatnonzero(arrives <= now).tolist():
            # One chunk at a time: a step decodes one of each stream.
            streams[row].push(noise[steps % 17], rate)
            waits.append(float(arrives[row]))
            arrives[row] += length
        if not waits:
            time.sleep(max(0.0, min(0.001, float(arrives.min()) - now)))
            continue
        started = time.perf_counter()
        engine.step()
        ended = time.perf_counter()
        late += [ended - begun - at for at in waits]
        steps, busy, decoded = steps + 1, busy + ended - started, decoded + len(waits)
    engine.close()
    p99 = _measure.percentile(late, 99)
    report.row(
        streams=batch,
        p50_ms=1000 * _measure.percentile(late, 50),
        p99_ms=1000 * p99,
        steps=steps,
        step_ms=1000 * busy / steps,
        ready=decoded / steps,
        busy_percent=100 * busy / (time.perf_counter() - begun),
    )
    return p99


if __name__ == "__main__":
    main()
