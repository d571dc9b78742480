"""Rotary positions of a published model for streams without end (Su et al. 2021, RoFormer, section 3.4.2)."""

from typing import Any

import torch
from torch import Tensor, nn

EXACT = 4096
"""Positions below this have the very angles of the model; an utterance of training has no others."""


class EndlessRotary(nn.Module):
    """A ``transformers`` module of rotary positions, of which positions from 4,096 on have angles computed in float64.

    The module itself multiplies a position and a frequency in float32, which loses the angle after some hours.

    Args:
        rotary: maps (x, position_ids, …) to cosine and sine, each (B, L, head_dim); it has ``inv_freq`` (head_dim / 2,) and
            ``attention_scaling``, by layer type (``<type>_inv_freq``) where that is an argument.
        exact: below this position ``rotary`` answers.
    """

    def __init__(self, rotary: nn.Module, exact: int = EXACT) -> None:
        super().__init__()
        self.rotary, self.exact = rotary, exact

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        """x for its device and type, position_ids (B, L) int64 → cosine, sine."""
        of_layer = () if layer_type is None else (layer_type,)
        rotary: Any = self.rotary
        cos, sin = rotary(x, position_ids.clamp(max=self.exact - 1), *of_layer)
        prefix = "".join(f"{name}_" for name in of_layer)
        frequencies = getattr(rotary, f"{prefix}inv_freq").to(x.device).float().double()
        scaling = getattr(rotary, f"{prefix}attention_scaling")
        angles = position_ids.unsqueeze(-1).double() * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        near = (position_ids < self.exact).unsqueeze(-1)
        return (
            torch.where(near, cos, (angles.cos() * scaling).to(cos.dtype)),
            torch.where(near, sin, (angles.sin() * scaling).to(sin.dtype)),
        )
