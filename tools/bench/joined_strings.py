#!/usr/bin/env python3
"""Strings of digits joined in one stream: errors against its length, and what a minute of something else between them does.

    joined_strings.py work/test.jsonl.gz --out FOLDER [--model NAME=BUNDLE[:WINDOW]]…

For each model, whose decoder attends as it was trained, or to WINDOW positions (0 = full attention, with room for the whole stream):
strings joined with short pauses to streams of --seconds at least; strings with --between seconds of silence, tones or noise between
them; memory of a stream's state, and operations per second of audio. Without --model: the digits model as it is, and with its window
lifted. A model that attends as one before does is not run again.
Writes joined.json after each row, and goes on from there: a row of the same strings, lengths and model is not measured again. At the end
joined.md and joined.png. `reallm data digits` makes the manifest.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reallm.bundle import load_shared, published
from reallm.bundle.layout import DESCRIPTION
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.data.files import atomic_write
from reallm.errors import CapacityError, InputError
from reallm.fingerprints import of_file, of_json
from reallm.metrics.plots import BLUE, GREEN, GREY, INK, ORANGE, RED, style
from reallm.metrics.provenance import git_revision
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


class Model(NamedTuple):
    """A system, and how its decoder is to attend."""

    name: str
    system: Any
    fingerprint: str  # of its bundle
    trained: int  # window, in positions; 0 = full attention
    window: int  # likewise, here

    @property
    def attention(self) -> str:
        """In words: attention that training did not have is said to be so."""
        now, then = (f"window {size}" if size else "full" for size in (self.window, self.trained))
        return now if now == then else f"{now} (trained with {then})"


class DoesNotAttend(InputError):
    """A system whose decoder has no window that could be another."""


def read_model(asked: str, known: dict[Path, Any]) -> Model:
    """NAME=BUNDLE[:WINDOW]; ``known`` are the systems loaded before.

    Raises InputError for what is not written so, what is no bundle, and (DoesNotAttend) a system that does not attend.
    """
    name, equals, place = asked.partition("=")
    head, _, tail = place.rpartition(":")
    folder = Path(head if head and tail.isdecimal() else place)
    if not (name and equals and place):
        raise InputError(f"--model '{asked}': write NAME=BUNDLE, or NAME=BUNDLE:WINDOW")
    if folder not in known:
        known[folder] = load_shared(folder)
    system = known[folder]
    if not hasattr(getattr(system, "decoder", None), "window"):
        raise DoesNotAttend(f"a {type(system).__name__} has no decoder that attends: take a Speech ReaLLM with one")
    trained = system.decoder.window
    bundle = folder if (folder / DESCRIPTION).is_file() else folder / "bundle"
    fingerprint = of_json({file.name: of_file(file) for file in bundle.iterdir() if file.is_file()})
    return Model(name, system, fingerprint, trained, int(tail) if head and tail.isdecimal() else trained)


def models_of(asked: Sequence[str], if_they_attend: bool) -> list[Model]:
    """Those that differ in what attends, and how. Raises InputError as :func:`read_model`, and for two of one name.

    ``if_they_attend``: systems without a decoder that attends are left out, and said, in place of an error.
    """
    loaded: dict[Path, Any] = {}
    models: list[Model] = []
    for one in asked:
        try:
            model = read_model(one, loaded)
        except DoesNotAttend as error:
            if not if_they_attend:
                raise
            print(f"{one.partition('=')[0]} is left out: {error}")
            continue
        same = next((other for other in models if other.system is model.system and other.window == model.window), None)
        if model.name in [other.name for other in models]:
            raise InputError(f"--model: two of {', '.join(other.name for other in [*models, model])} have one name")
        if same is None:
            models.append(model)
        else:
            print(f"{model.name} is left out: it attends like '{same.name}', {model.attention}")
    return models


def attend(system: Any, window: int, seconds: float, room: int = 2) -> None:
    """Let its decoder attend to ``window`` positions, or, with 0, to all of a stream of ``seconds``.

    ``room``: positions that full attention has for each speech embedding, itself included.
    """
    positions = math.ceil(seconds * system.sample_rate / system.period_samples)
    system.decoder.window, system.decoder.capacity = window, 0 if window else room * positions + 64


def cost(system: Any) -> tuple[float, float]:
    """Megabytes of one stream's state, and millions of operations (multiplications and additions) per second of audio."""
    state = system.init_state(1)
    size = sum(t.numel() * t.element_size() for t in tensors(state)) / 1e6
    samples, chunks = system.chunk_samples, 8
    counter, random = FlopCounterMode(display=False), torch.Generator().manual_seed(0)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is not counted
        for _ in range(chunks):
            wav = FAINT_NOISE * torch.randn(1, samples, generator=random)
            _, state = system.step(wav, torch.tensor([samples]), torch.tensor([False]), state)
    return size, counter.get_total_flops() / 1e6 * system.sample_rate / (chunks * samples)


def heard(system: Any, streams: list[tuple[str, Audio, int]]) -> ErrorCounts:
    """The errors of all streams together."""
    counts = ErrorCounts()
    for text, hypothesis, _ in stream_utterances(Recognizer(system, min(8, len(streams))), iter(streams), 1.0):
        counts.add(align_words(text.split(), hypothesis.text.split()))
    return counts


def measure(model: Model, streams: list[tuple[str, Audio, int]]) -> dict[str, Any]:
    """The errors of all streams together, and the cost of the longest.

    Full attention has room for two positions a speech embedding. Where a stream says more than fits, that is printed, and it is
    decoded again with more room, up to what no stream needs more of: responses of the most tokens at every speech embedding.
    """
    longest = max(len(samples) / rate for _, samples, rate in streams)
    system, most = model.system, 2 + model.system.searcher.max_symbols
    for room in sorted({2, 4, 8, most}):
        attend(system, model.window, longest, room)
        try:
            counts = heard(system, streams)
            break
        except CapacityError as error:
            if model.window or room >= most:
                raise
            print(f"{model.name}: {error}. It is decoded again, with room for more than {room} positions a speech embedding", flush=True)
    megabytes, operations = cost(system)
    return {
        "window": model.window,
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


def read_rows(file: Path) -> list[dict[str, Any]]:
    """What was measured before; nothing, where there is no file. Raises InputError for one that is not of this tool."""
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not what this tool writes ({error}): move it away") from None
    return rows


HEAD = ["between strings", "model", "attention", "streams", "longest, s", "words", "WER %", "ins / del / sub", "state, MB"]
HEAD += ["Mflop per s of audio"]
HEADING = "| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD)


def line_of(row: dict[str, Any]) -> str:
    """The line of the table for one measurement."""
    cells = [row["between"], row["model"], row["attention"], str(row["streams"]), f"{row['longest_s']:g}"]
    cells += [str(row["words"]), f"{row['wer']:.2f}", f"{row['insertions']} / {row['deletions']} / {row['substitutions']}"]
    cells += [f"{row['state_mb']:.2f}", f"{row['mflop_per_s']:.0f}"]
    return "| " + " | ".join(cells) + " |"


class Sweep(NamedTuple):
    """What is joined, and how: a line of the table for each model."""

    axis: str  # of the picture: "length" or "between"
    kind: str  # of what lies between strings
    gap: float  # seconds of that
    seconds: float  # that a stream has at least; infinite = one stream of all strings
    strings: list[tuple[Audio, str]]

    def row(self, model: Model) -> dict[str, Any]:
        """What a measurement is of: one of equal content need not be made again."""
        digest = hashlib.sha256()
        for samples, text in self.strings:
            digest.update(f"{len(samples)}\0{text}\0".encode() + samples.tobytes())
        of_strings = {"at_least_s": self.seconds if math.isfinite(self.seconds) else None, "strings": digest.hexdigest()}
        of_model = {"model": model.name, "attention": model.attention, "bundle": model.fingerprint}
        return {"sweep": self.axis, "between": f"{self.gap:g} s of {self.kind}", "gap_s": self.gap, **of_strings, **of_model}


def measure_all(sweeps: list[Sweep], models: list[Model], rate: int, manifest: Path, file: Path) -> list[dict[str, Any]]:
    """All rows, each printed and written to ``file`` as soon as it is known; those that are there already are not measured again."""
    before, revision = read_rows(file), git_revision()  # that of this process, whatever is committed while it runs
    wanted = [(sweep, model, sweep.row(model)) for sweep in sweeps for model in models]
    rows = [next((row for row in before if what.items() <= row.items()), None) for *_, what in wanted]
    if any(rows):
        print(f"{sum(map(bool, rows))} of {len(rows)} rows are in {file}")
    print(HEADING)
    for number, (sweep, model, what) in enumerate(wanted):
        row = rows[number]
        if row is None:
            streams = list(joined(sweep.strings, rate, sweep.seconds, sweep.kind, sweep.gap))
            row = rows[number] = {**what, **measure(model, streams), "git": revision}
            with atomic_write(file) as opened:
                json.dump({"manifest": str(manifest.resolve()), "rows": list(filter(None, rows))}, opened, indent=1)
        print(line_of(row), flush=True)
    return list(filter(None, rows))


def picture(rows: list[dict[str, Any]]) -> Any:
    """Errors, memory and operations against the length of a stream; errors with a minute of something between strings."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9.0, 6.6), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 2)
    lengths, others = ([row for row in rows if row["sweep"] == sweep] for sweep in ("length", "between"))
    panels = [
        ("Word error rate", "%", "wer"),
        ("Memory of a stream", "MB", "state_mb"),
        ("Operations", "Mflop per second of audio", "mflop_per_s"),
    ]
    models = list(dict.fromkeys((row["model"], row["attention"]) for row in rows))
    colours = [(BLUE, ORANGE, GREEN, RED, GREY)[number % 5] for number in range(len(models))]
    for panel, (title, unit, name) in zip(axes.flat[:3], panels, strict=True):
        for (model, attention), colour in zip(models, colours, strict=True):
            points = [(row["longest_s"], row[name]) for row in lengths if row["model"] == model]
            panel.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=1.6, label=f"{model}: {attention}")
        panel.set_xscale("log")
        panel.set_xticks(sorted({row["longest_s"] for row in lengths}))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_ylim(bottom=0)
        style(panel, title, "longest stream, seconds", unit, grid="both")
    kinds = list(dict.fromkeys(row["between"] for row in others))
    panel, width = axes[1, 1], 0.8 / len(models)
    shades = {"insertions": 1.0, "deletions": 0.6, "substitutions": 0.3}
    for number, (model, _) in enumerate(models):
        found = {row["between"]: row for row in others if row["model"] == model}
        place, bottom = np.arange(len(kinds)) + (number - (len(models) - 1) / 2) * width, np.zeros(len(kinds))
        for name, alpha in shades.items():
            height = np.array([100 * found[kind][name] / found[kind]["words"] for kind in kinds])
            panel.bar(place, height, 0.9 * width, bottom=bottom, color=colours[number], alpha=alpha)
            bottom = bottom + height
    panel.set_ylim(0, 1.35 * panel.get_ylim()[1])  # for the legend
    panel.set_xticks(range(len(kinds)), [kind.partition(" of ")[2] or kind for kind in kinds])
    panel.legend(
        handles=[Patch(color=GREY, alpha=alpha, label=name) for name, alpha in shades.items()], frameon=False, fontsize=8, labelcolor=INK
    )
    style(panel, f"Errors with {kinds[0].partition(' of ')[0]} between strings" if kinds else "", "between strings", "% of words")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument(
        "--model", action="append", metavar="NAME=BUNDLE[:WINDOW]", help="a bundle, or an experiment with one; give it several times"
    )
    parser.add_argument("--if-they-attend", action="store_true", help="leave out models that have no window that could be lifted")
    parser.add_argument("--seconds", type=float, action="append", help="least length of a stream; default: 1, 10, 90")
    parser.add_argument("--strings", type=int, default=20, help="how many of the manifest are joined")
    parser.add_argument("--between", type=float, default=60.0, help="seconds of silence, tones and noise")
    parser.add_argument("--between-strings", type=int, default=3, help="how many strings have these between them, in one stream")
    arguments = parser.parse_args()
    asked = arguments.model or [f"as trained={published()}", f"window lifted={published()}:0"]
    try:
        models = models_of(asked, arguments.if_they_attend)
        if not models:
            print("nothing is measured: no model attends")
            return
        rates = sorted({model.system.sample_rate for model in models})
        if len(rates) > 1:
            raise InputError(f"--model: models of {' and '.join(map(str, rates))} Hz: give those of one rate")
        rate = rates[0]
        strings = [
            (load_audio(cut, rate), text_of(cut)) for cut, _ in zip(read_cuts(arguments.manifest), range(arguments.strings), strict=False)
        ]
        few = strings[: arguments.between_strings]
        sweeps = [Sweep("length", "silence", PAUSE, seconds, strings) for seconds in arguments.seconds or [1.0, 10.0, 90.0]]
        sweeps += [Sweep("between", kind, arguments.between, math.inf, few) for kind in ("silence", "tones", "noise")]
        rows = measure_all(sweeps, models, rate, arguments.manifest, arguments.out / "joined.json")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    commits = ", ".join(dict.fromkeys(str(row["git"]) for row in rows))
    caption = f'{len(strings)} strings; commit {commits}. "Trained with": attention that the model met here first.'
    with atomic_write(arguments.out / "joined.md") as file:
        file.write("\n".join([caption, "", HEADING, *map(line_of, rows), ""]))
    picture(rows).savefig(arguments.out / "joined.png")
    print(f"\n{caption}\nwritten: {arguments.out}/joined.json, joined.md, joined.png")


if __name__ == "__main__":
    main()
