"""When a Speech ReaLLM says its words, against its teacher's alignment and the truth, as fast as they were spoken and slower and faster.

    emission_times.py HYPS --cuts CUTS --model BUNDLE --out FOLDER [--aligned CUTS]

CUTS knows the true times; its speeds are those of the `_sp` at the end of ids (`reallm data speed`). --aligned has the teacher's times too.
"""

import argparse
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pictures import panels

from reallm.bundle import load_shared
from reallm.data.alignments import token_alignment
from reallm.data.cuts import read_cuts
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.metrics.hypotheses import read_hypotheses
from reallm.metrics.plots import BLUE, GREEN, INK, ORANGE, style
from reallm.metrics.references import references
from reallm.metrics.score import ScoredUtterance, pair_up
from reallm.metrics.word_errors import ErrorCounts
from reallm.types import Seconds


@dataclass
class Speed:
    """What was measured at one speed. Differences of correct words; in token periods, and in milliseconds where the name says so."""

    counts: ErrorCounts = field(default_factory=ErrorCounts)
    to_truth: list[int] = field(default_factory=list)  # the period that the model takes for the word's end, less the true one
    to_teacher: list[int] = field(default_factory=list)  # … less the teacher's
    teacher_to_truth: list[int] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)  # the end of the period after which the word was said, less the true end
    emission_ms: list[float] = field(default_factory=list)  # when the word showed, less the true end


@dataclass(frozen=True)
class Clock:
    """The token periods of a model."""

    sample_rate: int
    period_samples: int
    delay: int  # token periods

    @property
    def period_ms(self) -> float:
        return 1000 * self.period_samples / self.sample_rate

    def period_of(self, end: Seconds) -> int:
        """The token period that a word ends in, from 1: it is due ``delay`` later (reallm/interleavers/_due.py)."""
        return max(1, -(-round(end * self.sample_rate) // self.period_samples))


def measure(scored: Iterable[ScoredUtterance], teacher_ends: Mapping[str, Sequence[Seconds]], clock: Clock) -> dict[float, Speed]:
    """By speed. ``teacher_ends``: of the words of the utterances that the teacher aligned."""
    speeds: dict[float, Speed] = defaultdict(Speed)
    for utterance in scored:
        speed = speeds[speed_of(utterance.reference.id)]
        speed.counts.add(utterance.pairs)
        speed.emission_ms += utterance.delays_ms()
        ends = teacher_ends.get(utterance.reference.id)
        for pair in utterance.correct:
            assert pair.ref is not None and pair.hyp is not None
            end = utterance.reference.spoken[pair.ref].end
            due, answered = clock.period_of(end), clock.period_of(utterance.recognized.words[pair.hyp].end)
            speed.to_truth.append(answered - due)
            speed.answer_ms.append((answered + clock.delay) * clock.period_ms - 1000 * end)
            if ends is not None:
                aligned = clock.period_of(ends[pair.ref])
                speed.to_teacher.append(answered - aligned)
                speed.teacher_to_truth.append(aligned - due)
    return dict(sorted(speeds.items()))


def speed_of(name: str) -> float:
    """1 where the id does not say."""
    found = re.search(r"_sp([0-9.]+)$", name)
    return float(found[1]) if found else 1.0


def teacher_ends(aligned: Path) -> dict[str, list[Seconds]]:
    """The ends of the words of each cut, whose tokens must be words. A cut that was not aligned is left out."""
    found = {}
    for cut in read_cuts(aligned):
        alignment = token_alignment(cut, cut.sampling_rate)
        if alignment is not None:
            found[cut.id] = alignment.end.tolist()
    return found


def shares(differences: Sequence[int]) -> str:
    """How many are 0, and how many at most 1 from it."""
    if not differences:
        return "–"
    exact = statistics.mean(d == 0 for d in differences)
    near = statistics.mean(abs(d) <= 1 for d in differences)
    return f"{100 * exact:.0f} / {100 * near:.0f}"


def quantiles(values: Sequence[float]) -> str:
    return " / ".join(f"{q:.0f}" for q in np.percentile(values, [10, 50, 90])) if len(values) else "–"


def table(speeds: Mapping[float, Speed]) -> str:
    """A row for each speed."""
    head = ["speed", "WER %", "errors / words", "answered − truth, periods: mean", "equal / within 1, %", "answered − teacher: mean"]
    head += ["equal / within 1, %", "teacher − truth: mean", "answer − true end, ms: p10 / p50 / p90", "emission delay ms: p10 / p50 / p90"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for factor, speed in speeds.items():
        cells = [f"{factor:g}", f"{speed.counts.wer or 0:.2f}", f"{speed.counts.errors} / {speed.counts.words}"]
        cells += [mean(speed.to_truth), shares(speed.to_truth), mean(speed.to_teacher), shares(speed.to_teacher)]
        cells += [mean(speed.teacher_to_truth), quantiles(speed.answer_ms), quantiles(speed.emission_ms)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean(values: Sequence[int]) -> str:
    return f"{statistics.mean(values):+.2f}" if values else "–"


def picture(speeds: Mapping[float, Speed], period_ms: float) -> Any:
    """Differences at speed 1; and what the other speeds change."""
    figure, axes = panels(6.4, 2, 2)
    one = speeds[1.0]
    compared = {
        "model − truth": (one.to_truth, BLUE),
        "model − teacher": (one.to_teacher, GREEN),
        "teacher − truth": (one.teacher_to_truth, ORANGE),
    }
    known = {name: of for name, of in compared.items() if of[0]}
    steps = np.arange(-5, 6)
    for number, (name, (values, colour)) in enumerate(known.items()):
        share = [100 * np.mean(np.clip(values, -5, 5) == step) for step in steps]
        axes[0, 0].bar(steps + 0.28 * (number - (len(known) - 1) / 2), share, width=0.26, color=colour, label=name)
    axes[0, 0].set_xticks(steps, ["≤ −5", *(f"{step:d}" for step in steps[1:-1]), "≥ 5"])
    axes[0, 0].legend(frameon=False, fontsize=8, labelcolor=INK)
    style(axes[0, 0], "Answered too late, speed 1", f"token periods of {period_ms:g} ms", "% of correct words", grid="both")
    factors = list(speeds)
    for values, colour, name in ((lambda s: s.answer_ms, BLUE, "answer"), (lambda s: s.emission_ms, ORANGE, "shown")):
        low, middle, high = np.array([np.percentile(values(speed), [10, 50, 90]) for speed in speeds.values()]).T
        axes[0, 1].fill_between(factors, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[0, 1].plot(factors, middle, color=colour, marker="o", markersize=4, linewidth=1.6, label=f"{name}: median, 10 to 90 %")
    axes[0, 1].legend(frameon=False, fontsize=8, labelcolor=INK)
    style(axes[0, 1], "After the true end of the word", "speed of the audio", "ms", grid="both")
    for name, attribute, colour in (
        ("model − truth", "to_truth", BLUE),
        ("model − teacher", "to_teacher", GREEN),
        ("teacher − truth", "teacher_to_truth", ORANGE),
    ):
        if name in known:
            means = [statistics.mean(getattr(speed, attribute)) for speed in speeds.values()]
            axes[1, 0].plot(factors, means, color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
    axes[1, 0].axhline(0, color=INK, linewidth=0.8)
    axes[1, 0].legend(frameon=False, fontsize=8, labelcolor=INK)
    style(axes[1, 0], "Mean difference", "speed of the audio", "token periods", grid="both")
    axes[1, 1].plot(factors, [speed.counts.wer for speed in speeds.values()], color=BLUE, marker="o", markersize=4, linewidth=1.6)
    axes[1, 1].set_ylim(bottom=0)
    style(axes[1, 1], "Word error rate", "speed of the audio", "%", grid="both")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hyps", type=Path, help="of reallm decode")
    parser.add_argument("--cuts", type=Path, required=True, help="what was decoded")
    parser.add_argument("--model", type=Path, required=True, help="the bundle that decoded")
    parser.add_argument("--aligned", type=Path, help="the same cuts, aligned by the teacher in words")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        system: Any = load_shared(arguments.model)
        clock = Clock(system.sample_rate, system.period_samples, system.delay)
        scored = pair_up(read_hypotheses(arguments.hyps), references(read_cuts(arguments.cuts)))
        if not all(utterance.reference.spoken for utterance in scored):
            raise InputError(f"{arguments.cuts} does not know when its words were spoken: take those of `reallm data digits`")
        speeds = measure(scored, teacher_ends(arguments.aligned) if arguments.aligned else {}, clock)
        if 1.0 not in speeds:
            raise InputError(f"{arguments.cuts} has no utterance at its own speed: make the manifest with `reallm data speed`")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    with atomic_write(arguments.out / "emission_times.md") as file:
        file.write(table(speeds) + "\n")
    picture(speeds, clock.period_ms).savefig(arguments.out / "emission_times.png")
    print(table(speeds))


if __name__ == "__main__":
    main()
