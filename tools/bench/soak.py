#!/usr/bin/env python3
"""A soak of the streaming engine: many live streams that join and leave at random, some of them badly behaved.

    reallm data digits --data DIR --out work --train-strings 1 --epochs 1
    tools/bench/soak.py work/test.jsonl.gz --minutes 30 --streams 64 --misbehaving 0.01 --threads 2 --json soak.json
    tools/bench/soak.py work/test.jsonl.gz --minutes 30 --streams 64 --misbehaving 0.01 --compiled --json soak-compiled.json

Each of the clients, which are asyncio tasks, waits a moment, joins, pushes an utterance at the speed of speech in pieces of 20 to 200 ms,
and leaves with its words. A misbehaving one sends NaN, numbers out of all range, another sample rate or audio after its end, stops sending,
leaves in the middle, begins anew, or pushes all at once. Afterwards the recognizer hears, one stream at a time, what each stream had
accepted. Prints a row a minute (memory on Linux), and at the end what was lost, as a table of RESULTS.md.

The exit status is 1 where the engine lost or changed a word of the recognizer's, a misbehaving stream did not end as it should, or the
memory of the last quarter is more than ``--growth-mb`` above that of the second.
"""

import argparse
import asyncio
import collections
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import _measure
import numpy as np
import torch

from reallm.bundle import load_shared, published
from reallm.data.cuts import load_audio, read_cuts
from reallm.errors import InputError
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.engine import Engine
from reallm.streaming.engine_async import AsyncStream, open_stream
from reallm.streaming.recognizer import Recognizer

PIECE = (0.02, 0.2)  # seconds pushed at a time, and between pushes
PAUSE = (0.0, 2.0)  # seconds between a client's streams


@dataclass
class Record:
    """What came of all streams."""

    said: collections.Counter[tuple[int, int, str]] = field(default_factory=collections.Counter)  # utterance, its samples, text → streams
    misbehaved: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)  # what did not end as it should
    seconds: float = 0.0  # of audio decoded
    latency: list[float] = field(default_factory=list)  # seconds from the end of an utterance to its last word
    memory: list[float] = field(default_factory=list)  # MB, each row

    @property
    def streams(self) -> int:
        """How many ended with words."""
        return sum(self.said.values())


class Client:
    """One user after the other.

    Args:
        engine: that is tried.
        utterances: samples (S,) each, at the system's rate.
        record: where results go.
        speed: seconds of audio a second; 0 = as fast as the engine takes it.
        misbehaving: share of streams that do.
        random: of this client alone.
    """

    def __init__(
        self, engine: Engine, utterances: list[np.ndarray], record: Record, speed: float, misbehaving: float, random: np.random.Generator
    ) -> None:
        self.engine, self.utterances, self.record = engine, utterances, record
        self.speed, self.misbehaving, self.random = speed, misbehaving, random
        self.rate = engine.system.sample_rate
        self.kinds: dict[str, Callable[[AsyncStream, int], Coroutine[Any, Any, None]]] = {
            "NaN": self.sends_nan,
            "out of range": self.is_out_of_range,
            "other rate": self.changes_rate,
            "after its end": self.pushes_after_finish,
            "stops sending": self.stops_sending,
            "leaves": self.leaves,
            "begins anew": self.begins_anew,
            "all at once": self.floods,
        }

    async def live(self, until: float) -> None:
        """Streams one after the other until the clock says ``until``."""
        while time.monotonic() < until:
            if self.speed:
                await asyncio.sleep(self.random.uniform(*PAUSE) / self.speed)
            chosen = int(self.random.integers(len(self.utterances)))
            async with await open_stream(self.engine) as stream:
                kind, act = "as it should be", self.says
                if self.random.random() < self.misbehaving:
                    kind = str(self.random.choice(list(self.kinds)))
                    act = self.kinds[kind]
                    self.record.misbehaved[kind] += 1
                try:
                    await act(stream, chosen)
                except Exception as error:
                    self.record.wrong.append(f"{kind}: {error!r}")

    async def push(self, stream: AsyncStream, samples: np.ndarray) -> None:
        """At the speed of speech."""
        while len(samples):
            piece = max(1, round(self.rate * self.random.uniform(*PIECE)))
            await stream.push(samples[:piece], self.rate)
            samples = samples[piece:]
            await asyncio.sleep(piece / self.rate / self.speed if self.speed else 0)

    async def end(self, stream: AsyncStream, chosen: int, samples: int) -> None:
        """The words of a stream that has pushed so many ``samples`` of an utterance."""
        begun = time.monotonic()
        hypothesis = await stream.finish()
        self.record.latency.append(time.monotonic() - begun)
        self.keep(chosen, samples, hypothesis.text)

    def keep(self, chosen: int, samples: int, text: str) -> None:
        """What was said, to be compared."""
        self.record.said[chosen, samples, text] += 1
        self.record.seconds += samples / self.rate

    async def says(self, stream: AsyncStream, chosen: int) -> None:
        """As it should be."""
        await self.push(stream, self.utterances[chosen])
        await self.end(stream, chosen, len(self.utterances[chosen]))

    async def refused(self, stream: AsyncStream, samples: np.ndarray, rate: int, reason: str) -> None:
        """Push what is to be refused."""
        try:
            await stream.push(samples, rate)
        except InputError as error:
            if reason not in str(error):
                self.record.wrong.append(f"refused, but since {error}")
        else:
            self.record.wrong.append(f"not refused: {reason}")

    async def sends_nan(self, stream: AsyncStream, chosen: int) -> None:
        samples = self.utterances[chosen]
        await self.push(stream, samples[: len(samples) // 2])
        await self.refused(stream, np.full(160, np.nan, dtype=np.float32), self.rate, "NaN")
        await self.push(stream, samples[len(samples) // 2 :])
        await self.end(stream, chosen, len(samples))

    async def is_out_of_range(self, stream: AsyncStream, chosen: int) -> None:
        try:  # words that mean nothing, or an error, which a push may find already: either is this stream's own
            await self.push(stream, self.utterances[chosen] * np.float32(1e30))
            await stream.finish()
        except InputError as error:
            if str(error) != str(stream.stream.error):
                raise

    async def changes_rate(self, stream: AsyncStream, chosen: int) -> None:
        await self.push(stream, self.utterances[chosen])
        await self.refused(stream, np.zeros(160, dtype=np.float32), self.rate * 2, "sample rate")
        await self.end(stream, chosen, len(self.utterances[chosen]))

    async def pushes_after_finish(self, stream: AsyncStream, chosen: int) -> None:
        await self.says(stream, chosen)
        await self.refused(stream, np.zeros(160, dtype=np.float32), self.rate, "finished")

    async def stops_sending(self, stream: AsyncStream, chosen: int) -> None:
        half = len(self.utterances[chosen]) // 2
        await self.push(stream, self.utterances[chosen][:half])
        waited = 0.0
        while not stream.stream.is_final and waited < 120:
            await asyncio.sleep(0.1)
            waited += 0.1
        if stream.stream.reclaimed:
            self.keep(chosen, half, stream.result().text)
        else:
            self.record.wrong.append(f"not reclaimed in {waited:.0f} s")

    async def leaves(self, stream: AsyncStream, chosen: int) -> None:
        await self.push(stream, self.utterances[chosen][: len(self.utterances[chosen]) // 2])

    async def begins_anew(self, stream: AsyncStream, chosen: int) -> None:
        await self.push(stream, self.utterances[chosen - 1][: len(self.utterances[chosen - 1]) // 2])
        stream.reset()
        await self.says(stream, chosen)

    async def floods(self, stream: AsyncStream, chosen: int) -> None:
        await stream.push(self.utterances[chosen], self.rate)
        await self.end(stream, chosen, len(self.utterances[chosen]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="lhotse cuts")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long clients go on joining")
    parser.add_argument("--streams", type=int, default=64, help="clients, and slots of the engine")
    parser.add_argument("--misbehaving", type=float, default=0.01, help="share of the streams that misbehave")
    parser.add_argument("--utterances", type=int, default=200, help="how many of the manifest are said, over and over")
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of audio that a client pushes a second; 0 = as fast as it can")
    parser.add_argument("--queue", type=float, default=10.0, help="seconds of audio of a stream that may wait")
    parser.add_argument("--idle-timeout", type=float, default=10.0, help="seconds after which a silent stream is ended")
    parser.add_argument("--device", default="cpu", help="where the model computes")
    parser.add_argument("--compiled", action="store_true", help="with compiled layers, on a processor")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--row-minutes", type=float, default=1.0, help="a row is printed as often")
    parser.add_argument("--growth-mb", type=float, default=20.0, help="memory that may be gained between the second and the last quarter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="results are written to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        passed = soak(arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if passed else 1)


def soak(arguments: argparse.Namespace) -> bool:
    """Print and write what there is to say; whether all went well."""
    system: Any = load_shared(arguments.model or published())
    system.to(arguments.device)
    system = with_compiled_layers(system) if arguments.compiled else system
    report = _measure.Report("soak", arguments)
    cuts = [cut for cut, _ in zip(read_cuts(arguments.manifest), range(arguments.utterances), strict=False)]
    utterances = [load_audio(cut, system.sample_rate) for cut in cuts]
    engine = Engine(system, arguments.streams, arguments.queue, max_waiting=arguments.streams, idle_timeout=arguments.idle_timeout)
    record = Record()
    seeds = np.random.SeedSequence(arguments.seed).spawn(arguments.streams)
    clients = [Client(engine, utterances, record, arguments.speed, arguments.misbehaving, np.random.default_rng(seed)) for seed in seeds]
    begun = time.monotonic()
    with engine:
        asyncio.run(live(engine, clients, record, begun, arguments.minutes, arguments.row_minutes))
        hung = engine.active
    elapsed = time.monotonic() - begun
    counts = compare(Recognizer(system), utterances, record)
    quarter = max(1, len(record.memory) // 4)
    growth = median(record.memory[-quarter:]) - median(record.memory[quarter : 2 * quarter] or record.memory[:quarter])
    report.note(
        minutes=elapsed / 60,
        audio_seconds=record.seconds,
        audio_seconds_a_second=record.seconds / elapsed,
        misbehaved=dict(record.misbehaved),
        wrong=record.wrong,
    )
    report.content["memory_mb"] = record.memory
    report.row(
        slots=arguments.streams,
        streams=record.streams,
        misbehaved=sum(record.misbehaved.values()),
        ended_otherwise_than_they_should=len(record.wrong),
        words=counts.words,
        words_lost=counts.deletions + counts.substitutions,
        words_inserted=counts.insertions,
        slots_still_taken=hung,
        **{f"last_word_after_p{percent}_ms": 1000 * _measure.percentile(record.latency, percent) for percent in (50, 99) if record.latency},
        memory_mb=record.memory[-1],
        memory_growth_mb=growth,
    )
    report.finish()
    return counts.errors == 0 and counts.words > 0 and not record.wrong and not hung and not growth > arguments.growth_mb


async def live(engine: Engine, clients: list[Client], record: Record, begun: float, minutes: float, row: float) -> None:
    """All clients until they are done, with a row now and then."""
    print("minutes  streams  active  audio s/s  memory MB", flush=True)

    def report() -> None:
        elapsed = time.monotonic() - begun
        record.memory.append(memory())
        rate = record.seconds / max(elapsed, 1e-9)
        print(f"{elapsed / 60:7.2f}  {record.streams:7d}  {engine.active:6d}  {rate:9.1f}  {record.memory[-1]:9.1f}", flush=True)

    async def rows() -> None:
        while True:
            await asyncio.sleep(60 * row)
            report()

    reporting = asyncio.create_task(rows())
    await asyncio.gather(*(client.live(begun + 60 * minutes) for client in clients))
    reporting.cancel()
    report()


def compare(recognizer: Recognizer, utterances: list[np.ndarray], record: Record) -> ErrorCounts:
    """Word errors of all streams against what one stream alone gets of the same audio."""
    counts, known = ErrorCounts(), dict[tuple[int, int], list[str]]()
    for (chosen, samples, text), streams in sorted(record.said.items()):
        if (chosen, samples) not in known:
            stream = recognizer.stream()
            stream.accept_waveform(utterances[chosen][:samples], recognizer.system.sample_rate)
            known[chosen, samples] = stream.finish().text.split()
        pairs = align_words(known[chosen, samples], text.split())
        for _ in range(streams):
            counts.add(pairs)
        if not all(pair.correct for pair in pairs):
            print(f"utterance {chosen}, {samples} samples, {streams} streams: '{text}' instead of '{' '.join(known[chosen, samples])}'")
    return counts


def memory() -> float:
    """Resident MB of this process, as the kernel counts them; NaN where it does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), float("nan"))


if __name__ == "__main__":
    main()
