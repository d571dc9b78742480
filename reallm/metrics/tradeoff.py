"""Word error rate against emission delay: which systems are better at the same delay."""

from collections.abc import Sequence
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


def weights_at(points: Sequence[Point], delay_ms: float) -> list[float] | None:
    """Of each decoding of a system, the share of utterances that are decoded like it within a mean delay; None where it cannot be so fast.

    Between two points of the frontier, some utterances are decoded in one way, the others in the other; later than the last, all in that
    one: whatever was recognized can be shown later. So one weight or two are above zero, and they sum to 1.
    """
    best = frontier(points)
    if not best or delay_ms < best[0].delay_ms:
        return None
    below = max(point for point in best if point.delay_ms <= delay_ms)
    above = next((point for point in best if point.delay_ms > delay_ms), None)
    share = 0.0 if above is None else (delay_ms - below.delay_ms) / (above.delay_ms - below.delay_ms)
    weights = [0.0] * len(points)
    weights[points.index(below)] = 1 - share
    if above is not None:
        weights[points.index(above)] = share
    return weights


def wer_at(points: Sequence[Point], delay_ms: float) -> float | None:
    """The error rate that a system reaches within a mean delay, in percent, by :func:`weights_at`; None where it cannot be so fast."""
    weights = weights_at(points, delay_ms)
    return None if weights is None else sum(weight * point.wer for weight, point in zip(weights, points, strict=True))
