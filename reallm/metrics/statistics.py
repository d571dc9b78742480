"""Small statistics: percentiles, bootstrap of a ratio and of the difference of two, area under a curve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def summary(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles, rounded to a tenth; None without values."""
    if not len(values):
        return None
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"mean": round(float(np.mean(values)), 1), "p50": round(p50, 1), "p90": round(p90, 1), "p99": round(p99, 1)}


def bootstrap_wer(errors: Sequence[int], words: Sequence[int], seed: int = 0, samples: int = 2000) -> tuple[float, float] | None:
    """The 95 % interval of the word error rate in percent, by drawing the groups (utterances, recordings) with replacement.

    Args:
        errors, words: of each group.
        seed: of the draws.
        samples: how many draws.

    None without words. Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", 2004.
    """
    if not sum(words):
        return None
    random = np.random.default_rng(seed)
    groups = len(words)
    draws = random.multinomial(groups, np.full(groups, 1 / groups), size=samples)
    drawn_words = draws @ np.asarray(words)
    rates = 100 * (draws @ np.asarray(errors))[drawn_words > 0] / drawn_words[drawn_words > 0]
    low, high = np.percentile(rates, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


class PairedDifference(NamedTuple):
    """Of two word error rates on the same words, in percentage points; below zero, the first is better."""

    difference: float
    low: float  # of the 95 % interval
    high: float
    better: float  # share of the draws in which the first has fewer errors, ties counting half


def paired_bootstrap(
    errors: Sequence[float], other_errors: Sequence[float], words: Sequence[int], seed: int = 0, samples: int = 2000
) -> PairedDifference | None:
    """Word error rate minus that of another system, by drawing the same groups (utterances, recordings) with replacement for both.

    Args:
        errors, other_errors: of each group by either system; a mean, where it has several runs or ways of decoding.
        words: of each group.
        seed: of the draws.
        samples: how many draws.

    None without words. Bisani and Ney 2004, section 4: ``better`` is their probability of improvement.
    """
    if not len(errors) == len(other_errors) == len(words):
        raise ValueError(f"{len(errors)} and {len(other_errors)} errors of {len(words)} groups: each group needs all three")
    if not sum(words):
        return None
    random = np.random.default_rng(seed)
    groups = len(words)
    draws = random.multinomial(groups, np.full(groups, 1 / groups), size=samples)
    more = np.asarray(errors, dtype=np.float64) - np.asarray(other_errors, dtype=np.float64)
    # Means and mixtures have rounding errors, which would break ties; 0.0 takes the sign off a zero.
    drawn_words, drawn = draws @ np.asarray(words), np.round(draws @ more, 9) + 0.0
    low, high = np.percentile(100 * drawn[drawn_words > 0] / drawn_words[drawn_words > 0], [2.5, 97.5])
    better = float((drawn < 0).mean() + (drawn == 0).mean() / 2)
    difference = 100 * (np.round(more.sum(), 9) + 0.0) / sum(words)
    return PairedDifference(float(difference), float(low), float(high), better)  # to be rounded once, where they are shown


def area_under_roc(scores: Sequence[float], correct: Sequence[bool]) -> float | None:
    """The probability that a correct item has a higher score than a wrong one, ties counting half (Mann-Whitney U).

    None where all are correct or none is.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    positives, negatives = int(right.sum()), int((~right).sum())
    if not positives or not negatives:
        return None
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[group][right].sum())
    return round((rank_sum - positives * (positives + 1) / 2) / (positives * negatives), 4)
