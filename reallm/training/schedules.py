"""How the learning rate moves: a factor of the optimizer's rate as a pure function of the update.

Pure, so that a resumed run needs no more than the number of updates done.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from reallm.errors import InputError


class Schedule(Protocol):
    """A learning rate schedule."""

    def factor(self, update: int, total: int) -> float:
        """What the learning rate of ``update`` (from 0) of ``total`` is multiplied by."""


def _check_warmup(warmup: int) -> None:
    if warmup < 1:
        raise InputError(f"schedule: warmup is {warmup} updates: at least 1")


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine down to ``floor`` at the last update (Loshchilov & Hutter, arXiv 1608.03983, without restarts)."""

    warmup: int  # updates
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        if not 0 <= self.floor <= 1:
            raise InputError(f"schedule: floor is {self.floor}: a factor from 0 to 1")

    def factor(self, update: int, total: int) -> float:
        if update < self.warmup:
            return (update + 1) / self.warmup
        progress = min(1.0, (update - self.warmup) / max(1, total - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class WarmupInverseSqrt:
    """Linear warm-up to 1, then 1 / sqrt(update / warmup) (Vaswani et al., arXiv 1706.03762, section 5.3, scaled to a peak of 1)."""

    warmup: int  # updates

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def factor(self, update: int, total: int) -> float:
        return min((update + 1) / self.warmup, math.sqrt(self.warmup / (update + 1)))
