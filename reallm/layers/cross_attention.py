"""Attention of text to an encoded utterance. Legend: reallm/types.py; H heads, E width of one, G queries."""

import torch.nn.functional as F
from torch import Tensor, nn

from reallm.errors import InputError


class CrossAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.3) to the frames of an encoder, without biases.

    Args:
        dim: D of the text side. Raises InputError unless it is a multiple of ``heads``.
        memory_dim: width of an encoder frame.
        heads: H.
    """

    def __init__(self, dim: int, memory_dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"dim {dim} must be a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(memory_dim, dim, bias=False)
        self.value = nn.Linear(memory_dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        """(B, P, D) → (B, H, P, E)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory (B, N, memory_dim) → keys and values (B, H, N, E), once an utterance."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """x (B, G, D), mask (B, 1, 1, N) bool, true at frames to attend to → (B, G, D)."""
        y = F.scaled_dot_product_attention(self._split(self.query(x)), keys, values, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))
