"""What an alignment run tells: who failed and why, how good the paths are, how far word times are from the truth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reallm.types import Word

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass
class Measurements:
    """What was measured on some utterances."""

    failures: list[tuple[str, str]] = field(default_factory=list)  # utterance and reason
    frame_scores: list[float] = field(default_factory=list)  # log-probability of the path per frame, one an utterance
    begin_errors: list[float] = field(default_factory=list)  # seconds, aligned minus true, one a word
    end_errors: list[float] = field(default_factory=list)
    other_words: list[str] = field(default_factory=list)  # utterances whose true words are not those of the transcript

    def compare_words(self, utterance: str, aligned: Sequence[Word], truth: Sequence[Word]) -> None:
        """Add the errors of one utterance that has true word times."""
        if [w.word for w in aligned] != [w.word for w in truth]:
            self.other_words.append(utterance)
            return
        self.begin_errors += [a.start - t.start for a, t in zip(aligned, truth, strict=True)]
        self.end_errors += [a.end - t.end for a, t in zip(aligned, truth, strict=True)]

    def extend(self, other: "Measurements") -> None:
        """Add another part's."""
        for name, values in asdict(other).items():
            getattr(self, name).extend(values)


def error_ms(errors: Sequence[float], offset: float | None = None) -> dict[str, float] | None:
    """Errors in seconds → milliseconds: their median, the median absolute error raw and after taking off one constant.

    The constant is ``offset_ms`` when given (fitted elsewhere), else the median of these errors. None without errors.
    """
    if not errors:
        return None
    values = np.asarray(errors) * 1000
    constant = float(np.median(values)) if offset is None else offset
    return {
        "words": len(errors),
        "median": round(float(np.median(values)), 3),
        "median_abs": round(float(np.median(np.abs(values))), 3),
        "offset": round(constant, 3),
        "median_abs_after_offset": round(float(np.median(np.abs(values - constant))), 3),
        "p90_abs_after_offset": round(float(np.percentile(np.abs(values - constant), 90)), 3),
    }


def make_report(measured: Measurements, meta: dict[str, Any], offsets: dict[str, float] | None = None) -> dict[str, Any]:
    """The report as it is written to JSON; ``offsets`` ("begin", "end", in ms) were fitted on other data."""
    count = len(measured.frame_scores) + len(measured.failures)
    given = offsets or {}
    return {
        **meta,
        "utterances": count,
        "failed": len(measured.failures),
        "reasons": dict(Counter(reason for _, reason in measured.failures).most_common()),
        "failures": [{"id": utterance, "reason": reason} for utterance, reason in measured.failures],
        "score_per_frame": {f"p{p}": round(float(np.percentile(measured.frame_scores, p)), 6) for p in PERCENTILES}
        if measured.frame_scores
        else None,
        "word_begin_error_ms": error_ms(measured.begin_errors, given.get("begin")),
        "word_end_error_ms": error_ms(measured.end_errors, given.get("end")),
        "utterances_with_other_true_words": measured.other_words,
    }


def describe(report: dict[str, Any]) -> list[str]:
    """The report in a few lines for the terminal."""
    lines = [f"{report['utterances']} utterances aligned by {report['backend']} {report['version']}, {report['failed']} failed"]
    lines += [f"  {count} × {reason}" for reason, count in list(report["reasons"].items())[:5]]
    if report["score_per_frame"]:
        lines.append("log-probability per frame: " + ", ".join(f"{name} {value:.3f}" for name, value in report["score_per_frame"].items()))
    for side in ("begin", "end"):
        error = report[f"word_{side}_error_ms"]
        if error:
            lines.append(
                f"word {side}s against the truth ({error['words']} words): median absolute error {error['median_abs']:.0f} ms, "
                f"{error['median_abs_after_offset']:.0f} ms after taking off {error['offset']:.0f} ms"
            )
    if report["utterances_with_other_true_words"]:
        lines.append(
            f"{len(report['utterances_with_other_true_words'])} utterances have true words that are not their transcript's: not compared"
        )
    return lines
