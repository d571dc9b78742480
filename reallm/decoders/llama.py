"""Llama-style decoder-only Transformer (Touvron et al. 2023, arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reallm.errors import InputError, at_least
from reallm.layers.attention_bias import attention_bias
from reallm.layers.causal_attention import CausalSelfAttention, window_mask
from reallm.layers.dropout import Dropout
from reallm.layers.rope import rotary_angles
from reallm.layers.swiglu import SwiGLU
from reallm.protocols import more_room
from reallm.registry import register
from reallm.streaming.constants import constant
from reallm.streaming.host import require_all
from reallm.streaming.state import StreamingState


class LlamaLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(self, dim: int, heads: int, kv_heads: int, hidden_dim: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=norm_eps)
        self.attention = CausalSelfAttention(dim, heads, kv_heads)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=norm_eps)
        self.feed_forward = SwiGLU(dim, hidden_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin, mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, place: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        x = x + self.attention.step(self.attention_norm(x), cos, sin, place, mask, keys, values)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def extend(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, new_keys, new_values = self.attention.extend(self.attention_norm(x), cos, sin, mask, keys, values)
        x = x + y
        return x + self.feed_forward(self.feed_forward_norm(x)), new_keys, new_values


@dataclass
class LlamaState(StreamingState):
    """Rings of keys and values, W slots a row."""

    position: Tensor  # (B,) int64, positions that the row has consumed
    keys: tuple[Tensor, ...]  # a layer: (B, kv_heads, W, head_dim)
    values: tuple[Tensor, ...]  # likewise


@dataclass
class Extension(StreamingState):
    """Keys and values of positions that a state may be lengthened by."""

    keys: tuple[Tensor, ...]  # a layer: (B, kv_heads, K, head_dim)
    values: tuple[Tensor, ...]  # likewise


@register("decoder", "llama")
class LlamaDecoder(nn.Module):
    """Decoder-only Transformer with a sliding attention window, so that streams may go on for ever.

    Args:
        vocab_size: V, BLANK included.
        dim: width of the model and of its input embeddings.
        layers, heads, kv_heads: depth, query heads, key and value heads (default: as many as query heads).
        hidden_dim: width of the feed-forward layers (default: 8/3 · dim, as in Llama, to a multiple of 16).
        window: positions that a position attends to, itself included, in training and in streaming. 0 = full attention.
        capacity: with full attention, the most positions that a stream may have: searchers end it there, alone; ``step`` raises
            InputError beyond.
        rope_base, norm_eps: as in Llama.
        dropout: of the residual branches, in training; dropout of the attention weights would rule out the fused kernel.

    Raises InputError for a size below 1, a window and a capacity or neither, and heads that do not divide ``dim``.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 144,
        layers: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        hidden_dim: int | None = None,
        window: int = 256,
        capacity: int = 0,
        rope_base: float = 10000.0,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
    ) -> None:
        at_least(1, vocab_size=vocab_size, dim=dim, layers=layers, heads=heads)
        at_least(0, kv_heads=kv_heads or 0, hidden_dim=hidden_dim or 0, window=window, capacity=capacity)
        super().__init__()
        if (window > 0) == (capacity > 0):
            raise InputError(f"window {window}, capacity {capacity}: give a window, or window 0 and the capacity of full attention")
        hidden_dim = hidden_dim or -(-dim * 8 // 3 // 16) * 16
        self.vocab_size, self.input_dim = vocab_size, dim
        self.window, self.capacity, self.rope_base = window, capacity, rope_base
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(LlamaLayer(dim, heads, kv_heads or heads, hidden_dim, dropout, norm_eps) for _ in range(layers))
        self.norm = nn.RMSNorm(dim, eps=norm_eps)
        self.output = nn.Linear(dim, vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    @classmethod
    def tiny(cls) -> "LlamaDecoder":
        """Two layers, four query heads, two key heads, a window of five positions."""
        return cls(vocab_size=11, dim=16, layers=2, heads=4, kv_heads=2, window=5)

    @property
    def _attention(self) -> CausalSelfAttention:
        layer = self.layers[0]
        assert isinstance(layer, LlamaLayer)
        return layer.attention

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""
        return self.token_embedding(token_ids)

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D), lens (B,) → logits (B, L, V). What lies beyond a row's length cannot reach what lies before."""
        length = inputs.size(1)
        positions = torch.arange(length, device=inputs.device)
        cos, sin = rotary_angles(positions, self._attention.head_dim, self.rope_base, inputs.dtype)
        mask = window_mask(length, self.window or None, inputs.device)
        x = inputs
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.output(self.norm(x))

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LlamaState:
        """The state of ``batch`` new streams."""
        attention = self._attention
        shape = (batch, attention.kv_heads, self.window or self.capacity, attention.head_dim)

        def rings() -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in self.layers)

        return LlamaState(torch.zeros(batch, dtype=torch.int64, device=device), rings(), rings())

    def require_room(self, active: Tensor, position: Tensor) -> None:
        """Raises InputError where an active row (B,) bool has no position (B,) int64 left."""
        if self.capacity:
            room = ~active | (position < self.capacity)
            require_all(room, f"a stream is longer than the {self.capacity} positions of full attention: {more_room(self)}")

    def require_window(self, positions: int) -> None:
        """Raises InputError for more ``positions`` at once than the window has."""
        size = self.window or self.capacity
        if positions > size:
            raise InputError(f"{positions} positions at once in a window of {size}: at most as many as it has")

    def step(self, inputs: Tensor, active: Tensor, state: LlamaState) -> tuple[Tensor, LlamaState]:
        """One position of each active row: inputs (B, D), active (B,) → logits (B, V), state."""
        position = state.position
        self.require_room(active, position)
        size = self.window or self.capacity
        place = self._attention.place(position % size)
        slots = constant(("slots", size, inputs.device), lambda: torch.arange(size, device=inputs.device))
        bias = attention_bias(slots <= position.view(-1, 1, 1, 1), inputs.dtype)
        cos, sin = rotary_angles(position.view(-1, 1, 1), self._attention.head_dim, self.rope_base, inputs.dtype)
        x = inputs
        for layer, keys, values in zip(self.layers, state.keys, state.values, strict=True):
            step: Any = layer.step
            x = step(x, cos, sin, place, bias, keys, values)
        return self.output(self.norm(x)), LlamaState(position + active, state.keys, state.values)

    def extend(self, inputs: Tensor, state: LlamaState) -> tuple[Tensor, Extension]:
        """The next K positions of all rows in one pass: inputs (B, K, D) → logits (B, K, V), and what ``accept`` takes; no state changes.

        Raises InputError for more positions than the window has.
        """
        self.require_window(inputs.size(1))
        first, size = state.position.unsqueeze(1), self.window or self.capacity
        ahead = torch.arange(inputs.size(1), device=inputs.device)
        slots = torch.arange(size, device=inputs.device)
        held = first - 1 - (first - 1 - slots) % size  # (B, W), the position in each slot; below 0 where there is none
        in_ring = ((held >= 0).unsqueeze(1) & (held.unsqueeze(1) > (first + ahead).unsqueeze(2) - size)).unsqueeze(1)
        among_new = (ahead <= ahead.unsqueeze(1)) & (ahead > ahead.unsqueeze(1) - size)
        mask = torch.cat([in_ring, among_new.expand(inputs.size(0), 1, -1, -1)], dim=3)
        cos, sin = rotary_angles((first + ahead).unsqueeze(1), self._attention.head_dim, self.rope_base, inputs.dtype)
        x, keys, values = inputs, [], []
        for layer, ring_keys, ring_values in zip(self.layers, state.keys, state.values, strict=True):
            extend: Any = layer.extend
            x, new_keys, new_values = extend(x, cos, sin, mask, ring_keys, ring_values)
            keys.append(new_keys)
            values.append(new_values)
        return self.output(self.norm(x)), Extension(tuple(keys), tuple(values))

    def accept(self, extension: Extension, count: Tensor, state: LlamaState) -> LlamaState:
        """The state after the first ``count`` (B,) positions of an extension of it; the rings are written into."""
        ahead = torch.arange(extension.keys[0].size(2), device=count.device)
        slots = (state.position.unsqueeze(1) + ahead) % (self.window or self.capacity)
        rows, taken = torch.arange(count.size(0), device=count.device).unsqueeze(1), (ahead < count.unsqueeze(1))[:, :, None, None]
        for rings, new in ((state.keys, extension.keys), (state.values, extension.values)):
            for ring, of_layer in zip(rings, new, strict=True):
                ring[rows, :, slots] = torch.where(taken, of_layer.transpose(1, 2), ring[rows, :, slots])
        return LlamaState(state.position + count, state.keys, state.values)
