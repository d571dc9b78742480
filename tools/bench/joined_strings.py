#!/usr/bin/env python3
"""Strings of digits joined in one stream: errors against its length, and what a minute of something else between them does.

    joined_strings.py work/test.jsonl.gz --out FOLDER [--model BUNDLE] [--window 64 --window 0]

For each window of the decoder (0 = full attention, with room for the whole stream): strings joined with short pauses to streams
of --seconds at least; strings with --between seconds of silence, tones or noise between them; memory of a stream's state, and
operations per second of audio.
Writes joined.json, joined.md and joined.png. `reallm data digits` makes the manifest.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reallm.bundle import load_shared, published
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.metrics.plots import BLUE, GREY, INK, ORANGE, style
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.simulation import stream_utterances
from reallm.streaming.state import tensors

PAUSE, FAINT_NOISE, LOUD = 0.5, 1e-4, 0.05  # seconds, and amplitudes
Audio = np.ndarray  # (S,) float32


def between(kind: str, seconds: float, rate: int, random: np.random.Generator) -> Audio:
    """What lies between two strings: "silence" (faint noise), "noise" (white), or "tones" (chords that change each half second)."""
    size = round(seconds * rate)
    sound = random.normal(0, LOUD if kind == "noise" else FAINT_NOISE, size)
    if kind == "tones":
        time = np.arange(size) / rate
        for start in range(0, size, rate // 2):
            part = time[start : start + rate // 2]
            for semitone in random.choice(24, 3, replace=False):
                sound[start : start + len(part)] += LOUD * np.sin(2 * np.pi * 220 * 2 ** (semitone / 12) * part)
    return sound.astype(np.float32)


def joined(strings: Sequence[tuple[Audio, str]], rate: int, seconds: float, kind: str, gap: float) -> Iterator[tuple[str, Audio, int]]:
    """Streams of the strings in their order, each as long as ``seconds`` at least: text, samples, rate. The last one may be shorter."""
    random = np.random.default_rng(0)
    parts: list[Audio] = []
    texts: list[str] = []
    for samples, text in strings:
        if parts:
            parts.append(between(kind, gap, rate, random))
        parts.append(samples)
        texts.append(text)
        if sum(map(len, parts)) >= seconds * rate:
            yield " ".join(texts), np.concatenate(parts), rate
            parts, texts = [], []
    if parts:
        yield " ".join(texts), np.concatenate(parts), rate


def attend(system: Any, window: int, seconds: float) -> None:
    """Let its decoder attend to ``window`` positions, or, with 0, to all of a stream of ``seconds``."""
    if not hasattr(getattr(system, "decoder", None), "window"):
        raise InputError(f"a {type(system).__name__} has no decoder that attends: take a Speech ReaLLM with one")
    positions = math.ceil(seconds * system.sample_rate / system.period_samples)
    # As many words as two a second, and room for what is made up.
    system.decoder.window, system.decoder.capacity = window, 0 if window else 2 * positions + 64


def cost(system: Any) -> tuple[float, float]:
    """Megabytes of one stream's state, and millions of operations (multiplications and additions) per second of audio."""
    state = system.init_state(1)
    size = sum(t.numel() * t.element_size() for t in tensors(state)) / 1e6
    samples, chunks = system.chunk_samples, 8
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is not counted
        for _ in range(chunks):
            wav = FAINT_NOISE * torch.randn(1, samples)
            _, state = system.step(wav, torch.tensor([samples]), torch.tensor([False]), state)
    return size, counter.get_total_flops() / 1e6 * system.sample_rate / (chunks * samples)


def measure(system: Any, streams: list[tuple[str, Audio, int]], window: int) -> dict[str, Any]:
    """The errors of all streams together, and the cost of the longest."""
    longest = max(len(samples) / rate for _, samples, rate in streams)
    attend(system, window, longest)
    counts = ErrorCounts()
    for text, hypothesis, _ in stream_utterances(Recognizer(system, min(8, len(streams))), iter(streams), 1.0):
        counts.add(align_words(text.split(), hypothesis.text.split()))
    megabytes, operations = cost(system)
    return {
        "window": window,
        "streams": len(streams),
        "longest_s": round(longest, 1),
        "words": counts.words,
        "wer": round(counts.wer or 0.0, 2),
        "insertions": counts.insertions,
        "deletions": counts.deletions,
        "substitutions": counts.substitutions,
        "state_mb": round(megabytes, 3),
        "mflop_per_s": round(operations, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each measurement."""
    head = [
        "between strings",
        "attention",
        "streams",
        "longest, s",
        "words",
        "WER %",
        "ins / del / sub",
        "state, MB",
        "Mflop per s of audio",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["between"], f"window {row['window']}" if row["window"] else "full", str(row["streams"]), f"{row['longest_s']:g}"]
        cells += [str(row["words"]), f"{row['wer']:.2f}", f"{row['insertions']} / {row['deletions']} / {row['substitutions']}"]
        cells += [f"{row['state_mb']:.2f}", f"{row['mflop_per_s']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], windows: Sequence[int]) -> Any:
    """Errors, memory and operations against the length of a stream; errors with a minute of something between strings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.2), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 2)
    lengths = [row for row in rows if row["gap_s"] == PAUSE]
    panels = [
        ("Word error rate", "%", "wer"),
        ("Memory of a stream", "MB", "state_mb"),
        ("Operations", "Mflop per second of audio", "mflop_per_s"),
    ]
    colours = dict(zip(windows, (BLUE, ORANGE, GREY), strict=False))
    for panel, (title, unit, name) in zip(axes.flat[:3], panels, strict=True):
        for window in windows:
            points = [(row["longest_s"], row[name]) for row in lengths if row["window"] == window]
            label = f"window {window}" if window else "full attention"
            panel.plot(*zip(*points, strict=True), color=colours[window], marker="o", markersize=4, linewidth=1.6, label=label)
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False, fontsize=8, labelcolor=INK)
        style(panel, title, "longest stream, seconds", unit, grid="both")
    kinds = list(dict.fromkeys(row["between"] for row in rows if row["gap_s"] != PAUSE))
    panel = axes[1, 1]
    for number, window in enumerate(windows):
        found = {row["between"]: row for row in rows if row["gap_s"] != PAUSE and row["window"] == window}
        place, bottom = np.arange(len(kinds)) + (number - (len(windows) - 1) / 2) * 0.36, np.zeros(len(kinds))
        for name, alpha in (("insertions", 1.0), ("deletions", 0.6), ("substitutions", 0.3)):
            height = np.array([100 * found[kind][name] / found[kind]["words"] for kind in kinds])
            label = f"{name}, {f'window {window}' if window else 'full'}"
            panel.bar(place, height, 0.32, bottom=bottom, color=colours[window], alpha=alpha, label=label)
            bottom = bottom + height
    panel.set_xticks(range(len(kinds)), [kind.partition(" of ")[2] or kind for kind in kinds])
    panel.legend(frameon=False, fontsize=7.5, labelcolor=INK)
    style(panel, "Errors with a pause of another kind", "between strings", "% of words", grid="both")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--window", type=int, action="append", help="decoder positions; 0 = full attention; default: 64 and 0")
    parser.add_argument("--seconds", type=float, action="append", help="least length of a stream; default: 1, 10, 50")
    parser.add_argument("--strings", type=int, default=20, help="how many of the manifest are joined")
    parser.add_argument("--between", type=float, default=60.0, help="seconds of silence, tones and noise")
    parser.add_argument("--between-strings", type=int, default=3, help="how many strings have these between them, in one stream")
    arguments = parser.parse_args()
    windows = arguments.window or [64, 0]
    try:
        system: Any = load_shared(arguments.model or published())
        rate = system.sample_rate
        strings = [
            (load_audio(cut, rate), text_of(cut)) for cut, _ in zip(read_cuts(arguments.manifest), range(arguments.strings), strict=False)
        ]
        rows = []
        sweeps = [("silence", PAUSE, seconds, strings) for seconds in arguments.seconds or [1, 10, 50]]
        sweeps += [(kind, arguments.between, math.inf, strings[: arguments.between_strings]) for kind in ("silence", "tones", "noise")]
        for kind, gap, seconds, chosen in sweeps:
            streams = list(joined(chosen, rate, seconds, kind, gap))
            for window in windows:
                rows.append({"between": f"{gap:g} s of {kind}", "gap_s": gap, **measure(system, streams, window)})
                print(rows[-1], flush=True)
    except InputError as error:
        sys.exit(f"error: {error}")
    with atomic_write(arguments.out / "joined.json") as file:
        json.dump(rows, file, indent=1)
    with atomic_write(arguments.out / "joined.md") as file:
        file.write(table(rows) + "\n")
    picture(rows, windows).savefig(arguments.out / "joined.png")
    print(table(rows))


if __name__ == "__main__":
    main()
