"""Causal self-attention with rotary positions and a sliding window, in parallel or one position at a time.

The streaming pass keeps the last W keys and values of each row in a ring: position p lies in slot p mod W. Keys are
stored after rotation, so their order in the ring does not matter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.layers.rope import rotate


def window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(L, L) bool: query i attends to keys i - window < j <= i; None where plain causal attention is the same."""
    if window is None or length <= window:
        return None
    age = torch.arange(length, device=device).unsqueeze(1) - torch.arange(length, device=device)
    return (age >= 0) & (age < window)


class CausalSelfAttention(nn.Module):
    """Multi-head attention with grouped keys and values (Ainslie et al. 2023, GQA, section 2.2); no biases.

    Raises InputError unless dim is an even multiple of heads, and heads a multiple of kv_heads.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        if dim % heads or heads % kv_heads or dim // heads % 2:
            raise InputError(f"dim {dim} must be an even multiple of heads {heads}, and heads a multiple of kv_heads {kv_heads}")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def place(self, slot: Tensor) -> Tensor:
        """slot (B,) int64 of the rings, as ``step`` takes it: (B, kv_heads, 1, head_dim)."""
        return slot.view(-1, 1, 1, 1).expand(-1, self.kv_heads, -1, self.head_dim)

    def _project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.query(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        k = self.key(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.value(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, D), angles (L, head_dim), mask (L, L) or None for plain causal → (B, L, D)."""
        q, k, v = self._project(x, cos, sin)
        grouped = self.heads != self.kv_heads
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
        return self.out(y.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, place: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One position a row; writes into the rings.

        Args:
            x: (B, D).
            cos, sin: (B, 1, 1, head_dim), each row at its own position.
            place: of ``place``, where the row's new key goes. A resting row may write there too: the slot that comes
                next holds the one position that has left the window, and is overwritten before it is read.
            mask: (B, 1, 1, W), true (of bool) or 0 (else -inf) at the slots that the row attends to, the new one included.
            keys, values: (B, kv_heads, W, head_dim), the rings.
        """
        heads = (x.size(0), -1, 1, self.head_dim)
        turned = rotate(torch.cat([self.query(x), self.key(x)], dim=1).view(heads), cos, sin)
        q, k = turned.split([self.heads, self.kv_heads], dim=1)
        keys.scatter_(2, place, k)
        values.scatter_(2, place, self.value(x).view(heads))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.flatten(1))

    def extend(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next K positions of each row at once; the rings are read, and not written.

        Args:
            x: (B, K, D).
            cos, sin: (B, 1, K, head_dim).
            mask: (B, 1, K, W + K) bool, what each attends to: slots of the rings, then the K positions.
            keys, values: (B, kv_heads, W, head_dim), the rings.

        Returns (B, K, D), and the new keys and values (B, kv_heads, K, head_dim).
        """
        q, k, v = self._project(x, cos, sin)
        every_key, every_value = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        y = F.scaled_dot_product_attention(q, every_key, every_value, attn_mask=mask, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.transpose(1, 2).flatten(2)), k, v
