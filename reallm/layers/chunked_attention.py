"""Self-attention over chunks, with rotary positions. Legend: reallm/types.py; H heads, E width of one."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.layers.attention_bias import attention_bias
from reallm.layers.chunk_layout import ChunkLayout
from reallm.layers.dropout import Dropout
from reallm.layers.rope import rotary_angles, rotate
from reallm.streaming.constants import constant
from reallm.streaming.state import StreamingState


@dataclass
class AttentionContext(StreamingState):
    """Keys, not yet rotated, and values of the frames left of a chunk."""

    keys: Tensor  # (B, left, D)
    values: Tensor  # (B, left, D)

    @classmethod
    def empty(cls, batch: int, left: int, dim: int, device: torch.device | str, dtype: torch.dtype) -> "AttentionContext":
        """Before the start of a stream."""
        return cls(*(torch.zeros(batch, left, dim, device=device, dtype=dtype) for _ in range(2)))

    def advance(self, keys: Tensor, values: Tensor, at: ChunkLayout) -> "AttentionContext":
        """The context after the last chunk, copies aside; ``keys`` and ``values`` are padded sequences."""

        def last(before: Tensor, x: Tensor) -> Tensor:
            heard = x[:, : x.size(1) - at.padding] if at.padding else x
            main = heard.unflatten(1, (-1, at.size + at.right))[:, :, : at.size].flatten(1, 2)
            return torch.cat([before, main], dim=1)[:, main.size(1) :]

        return AttentionContext(last(self.keys, keys), last(self.values, values))


def padded_sequence(x: Tensor, at: ChunkLayout) -> Tensor:
    """x (B, chunks, size + right, D) → (B, P, D), with the empty frames that make groups divide the chunks."""
    return nn.functional.pad(x.flatten(1, 2), (0, 0, 0, at.padding))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, P, D) → (B, H, P, E)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def query_blocks(x: Tensor, at: ChunkLayout) -> Tensor:
    """Queries (B, H, P, E) → (B · blocks, H, queries, E)."""
    return x.unflatten(2, (-1, at.block + at.right)).transpose(1, 2).flatten(0, 1)


def key_blocks(context: Tensor, x: Tensor, at: ChunkLayout) -> Tensor:
    """Context (B, H, left, E) and chunks (B, H, P, E) → keys or values (B · blocks, H, keys, E)."""
    heads, width = x.size(1), x.size(3)
    chunks = x.unflatten(2, (-1, at.size + at.right))
    sequence = torch.cat([context, chunks[:, :, :, : at.size].flatten(2, 3)], dim=2)
    windows = sequence.unfold(2, at.left + at.block, at.block).transpose(3, 4)  # (B, H, blocks, left + block, E)
    if at.right:
        windows = torch.cat([windows, chunks[:, :, :, at.size :]], dim=3)
    return windows.transpose(1, 2).reshape(-1, heads, windows.size(3), width)


def joined_heads(attended: Tensor, like: Tensor) -> Tensor:
    """(B · blocks, H, queries, E) → (B, chunks, size + right, D), the shape of ``like``."""
    batch, chunks, span, dim = like.shape
    return attended.transpose(1, 2).reshape(batch, -1, dim)[:, : chunks * span].unflatten(1, (chunks, span))


class ChunkedAttention(nn.Module):
    """LayerNorm and multi-head attention in the layout of :mod:`reallm.layers.chunk_layout`; the caller adds the residual.

    Positions count from the left context's first frame, so that an endless stream never loses their precision; only
    differences of positions matter.

    Args:
        dim: D.
        heads: H. Raises InputError unless D is a multiple of 2 · H.
        dropout: of the output; dropout of the attention weights would rule out the fused kernel.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise InputError(f"{heads} heads of a model of width {dim}: rotary positions need a width that is a multiple of {2 * heads}")
        self.heads = heads
        self.head_dim = dim // heads
        self.norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.out_dropout = Dropout(dropout)

    def init_context(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> AttentionContext:
        """An empty left context."""
        return AttentionContext.empty(batch, left, self.heads * self.head_dim, device, dtype)

    def forward(self, x: Tensor, context: AttentionContext, at: ChunkLayout) -> tuple[Tensor, AttentionContext]:
        """x (B, chunks, size + right, D) → the same shape, and the keys and values of its last ``left`` frames.

        The returned context is that after the last chunk, copies aside.
        """
        span = x.size(2)
        query, key, value = padded_sequence(self.in_proj(self.norm(x)), at).chunk(3, dim=-1)
        angles = at.cached((self.head_dim, query.dtype), lambda: self._angles(at, query.size(1) // span, span, query))
        rotated_query, rotated_key = (rotate(split_heads(y, self.heads), *angles) for y in (query, key))
        left_angles = at.cached(
            ("left", self.head_dim, context.keys.dtype),
            lambda: rotary_angles(torch.arange(at.left, device=x.device), self.head_dim, dtype=context.keys.dtype),
        )
        left_key = rotate(split_heads(context.keys, self.heads), *left_angles)
        attended = nn.functional.scaled_dot_product_attention(
            query_blocks(rotated_query, at),
            key_blocks(left_key, rotated_key, at),
            key_blocks(split_heads(context.values, self.heads), split_heads(value, self.heads), at),
            attn_mask=at.mask,
        )
        return self.out_dropout(self.out_proj(joined_heads(attended, x))), context.advance(key, value, at)

    def step(self, x: Tensor, context: AttentionContext, at: ChunkLayout) -> tuple[Tensor, AttentionContext]:
        """One chunk x (B, size + right, D) → the same shape, and the context after it."""
        batch, span, dim = x.shape
        query, key, value = self.in_proj(self.norm(x)).chunk(3, dim=-1)
        keys = torch.cat([context.keys, key, query], dim=1)  # queries are turned with them
        values = torch.cat([context.values, value], dim=1)
        cos, sin = at.cached(("step", self.head_dim, x.dtype), lambda: self._step_angles(at, span, x).unbind())
        turned = rotate(keys.view(batch, -1, self.heads, self.head_dim), cos, sin).transpose(1, 2)
        turned_keys, turned_query = turned.split([at.left + span, span], dim=2)
        attended = nn.functional.scaled_dot_product_attention(
            turned_query,
            turned_keys,
            values.view(batch, -1, self.heads, self.head_dim).transpose(1, 2),
            attn_mask=at.cached(("bias", x.dtype), lambda: attention_bias(at.mask, x.dtype)),
        )
        y = self.out_dropout(self.out_proj(attended.transpose(1, 2).reshape(batch, span, dim)))
        left = slice(at.size, at.size + at.left)
        return y, AttentionContext(keys[:, left], values[:, left])

    def _step_angles(self, at: ChunkLayout, span: int, like: Tensor) -> Tensor:
        """Cosine and sine of all keys and then of the queries of a chunk, (2, left + 2 · span, 1, E)."""

        def make() -> Tensor:
            position = torch.arange(at.left + span, device=like.device)
            return torch.stack(rotary_angles(torch.cat([position, position[at.left :]]).unsqueeze(1), self.head_dim, dtype=like.dtype))

        return constant(("chunk angles", self.head_dim, at.left, span, like.dtype, like.device), make)

    def _angles(self, at: ChunkLayout, chunks: int, span: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each frame of the padded sequence, (P, E) each."""
        start = at.left + at.size * torch.arange(chunks, device=like.device)
        positions = (start.unsqueeze(1) + torch.arange(span, device=like.device)).flatten()
        return rotary_angles(positions, self.head_dim, dtype=like.dtype)
