"""Rotary position embedding (Su et al. 2021, RoFormer, section 3.4.2), in the half-split layout of Llama.

Angles are computed in float64: in float32 an endless stream loses them after some hours.

A pair of numbers (a, b), which lie half a head apart, becomes (a cos - b sin, b cos + a sin)::

    x           a  a' a" … | b  b' b" …
    swapped     b  b' b" … | a  a' a" …
    x · cos + swapped · (-sin | sin)
"""

import torch
from torch import Tensor

from reallm.streaming.constants import constant


def frequencies(dim: int, base: float = 10000.0, device: torch.device | str = "cpu") -> Tensor:
    """(dim / 2,) float64, the angle that each pair of numbers is turned by from one position to the next."""
    found: Tensor = base ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
    return found


def rotary_angles(positions: Tensor, dim: int, base: float = 10000.0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles for integer or float ``positions`` (…), each (…, dim) in ``dtype``, as ``rotate`` takes them.

    The first half of both is that of the negative angles.
    """
    device = positions.device

    def signed() -> Tensor:
        found = frequencies(dim, base, device)
        return torch.cat([-found, found])

    angles = positions.unsqueeze(-1) * constant(("rotary", dim, base, device), signed)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (…, dim) turned by the angles of ``rotary_angles``, whose leading dimensions broadcast against those of x."""
    return x * cos + x.roll(x.size(-1) // 2, -1) * sin
