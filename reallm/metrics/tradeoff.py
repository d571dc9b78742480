"""Word error rate against emission delay: which systems are better at the same delay."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    """One decoding."""

    delay_ms: float  # mean emission delay
    wer: float  # percent


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both: delays rise, error rates fall."""
    best: list[Point] = []
    for point in sorted(points):
        if not best or point.wer < best[-1].wer:
            best.append(point)
    return best


def wer_at(points: Sequence[Point], delay_ms: float) -> float | None:
    """The error rate that a system reaches within a mean delay, in percent; None where it cannot be so fast.

    Between two points of the frontier it is interpolated: some utterances decoded in one way, the others in the other. Later than the
    last, it is that of the last: whatever was recognized can be shown later.
    """
    best = frontier(points)
    if not best or delay_ms < best[0].delay_ms:
        return None
    for left, right in pairwise(best):
        if left.delay_ms <= delay_ms <= right.delay_ms:
            share = (delay_ms - left.delay_ms) / (right.delay_ms - left.delay_ms)
            return left.wer + share * (right.wer - left.wer)
    return best[-1].wer
