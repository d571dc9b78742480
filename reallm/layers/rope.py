"""Rotary position embedding (Su et al. 2021, RoFormer, section 3.4.2), in the half-split layout of Llama.

Angles are computed in float64: in float32 an endless stream loses them after some hours.
"""

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, dim: int, base: float = 10000.0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles, each (…, dim / 2) in ``dtype``, for integer or float ``positions`` (…)."""
    inverse = base ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
    angles = positions.double().unsqueeze(-1) * inverse
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (…, dim) turned by the angles, whose leading dimensions broadcast against those of x."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
