"""The text half of an attention encoder-decoder. Legend: reallm/types.py; K hypotheses of an utterance."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reallm.layers.causal_attention import CausalSelfAttention
from reallm.layers.cross_attention import CrossAttention
from reallm.layers.dropout import Dropout
from reallm.layers.feed_forward import FeedForward
from reallm.layers.rope import rotary_angles
from reallm.streaming.context import length_mask
from reallm.streaming.state import StreamingState


@dataclass
class TextState(StreamingState):
    """Keys and values of the text so far, allocated for the longest."""

    position: Tensor  # (R,) int64
    keys: tuple[Tensor, ...]  # a layer: (R, H, capacity, E)
    values: tuple[Tensor, ...]  # likewise


@dataclass(frozen=True)
class Memory:
    """Encoded utterances, as every layer attends to them."""

    keys: tuple[Tensor, ...]  # a layer: (B, H, N, E)
    values: tuple[Tensor, ...]  # likewise
    mask: Tensor  # (B, 1, 1, N) bool


class CrossAttentionLayer(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each with a residual connection."""

    def __init__(self, dim: int, memory_dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_norm, self.cross_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attention = CausalSelfAttention(dim, heads, heads)
        self.cross_attention = CrossAttention(dim, memory_dim, heads)
        self.feed_forward = FeedForward(dim, hidden, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.self_norm(x), cos, sin, None))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), keys, values, mask))
        return x + self.feed_forward(x)

    def step(
        self, x: Tensor, at: tuple[Tensor, Tensor, Tensor, Tensor], cache: tuple[Tensor, Tensor], keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """x (R, D), one position a row, R = B · K rows; ``at``: cos, sin, place, mask of the self-attention, ``cache`` its buffers."""
        x = x + self.self_attention.step(self.self_norm(x), *at, *cache)
        # All hypotheses of an utterance are queries to the same frames: nothing is copied.
        queries = self.cross_norm(x).unflatten(0, (keys.size(0), -1))
        x = x + self.cross_attention(queries, keys, values, mask).flatten(0, 1)
        return x + self.feed_forward(x)


class CrossAttentionDecoder(nn.Module):
    """Transformer decoder (Vaswani et al. 2017, section 3.1), pre-norm (Xiong et al. 2020), with rotary positions.

    Args:
        vocab_size: V, the end of the text included.
        memory_dim: width of an encoder frame.
        dim: D.
        layers, heads: depth and attention heads; ``dim`` is an even multiple of ``heads``, else InputError.
        hidden: width of the feed-forward layers.
        dropout: of the residual branches, in training.
    """

    def __init__(self, vocab_size: int, memory_dim: int, dim: int, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(CrossAttentionLayer(dim, memory_dim, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)
        nn.init.normal_(self.token_embedding.weight, std=dim**-0.5)

    @property
    def _attention(self) -> CausalSelfAttention:
        layer: Any = self.layers[0]
        attention: CausalSelfAttention = layer.self_attention
        return attention

    def remember(self, memory: Tensor, lens: Tensor) -> Memory:
        """Encoder frames (B, N, memory_dim), lens (B,) → what the layers attend to; of an empty utterance, one frame of zeros."""
        memory = memory if memory.size(1) else memory.new_zeros(memory.size(0), 1, memory.size(2))
        layers: Any = self.layers
        pairs = [layer.cross_attention.remember(memory) for layer in layers]
        mask = length_mask(lens.clamp(min=1), memory.size(1))[:, None, None]
        return Memory(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs), mask)

    def forward(self, token_ids: Tensor, memory: Memory) -> Tensor:
        """token_ids (B, U) → logits (B, U, V): in parallel, for training. What lies beyond a row's length reaches nothing before it."""
        positions = torch.arange(token_ids.size(1), device=token_ids.device)
        x = self.token_embedding(token_ids)
        cos, sin = rotary_angles(positions, self._attention.head_dim, dtype=x.dtype)
        for layer, keys, values in zip(self.layers, memory.keys, memory.values, strict=True):
            x = layer(x, cos, sin, keys, values, memory.mask)
        return self.output(self.norm(x))

    def init_state(self, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> TextState:
        """The state of ``rows`` new hypotheses of ``capacity`` positions at most."""
        shape = (rows, self._attention.heads, capacity, self._attention.head_dim)

        def buffers() -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in self.layers)

        return TextState(torch.zeros(rows, dtype=torch.int64, device=device), buffers(), buffers())

    def step(self, token_ids: Tensor, state: TextState, memory: Memory) -> tuple[Tensor, TextState]:
        """One position of R = B · K rows, K of an utterance side by side: token_ids (R,) → logits (R, V), state."""
        position = state.position
        capacity = state.keys[0].size(2)
        place = self._attention.place(position)
        valid = (torch.arange(capacity, device=position.device) <= position.unsqueeze(1))[:, None, None]
        x = self.token_embedding(token_ids)
        cos, sin = rotary_angles(position.view(-1, 1, 1), self._attention.head_dim, dtype=x.dtype)
        caches = zip(state.keys, state.values, strict=True)
        for layer, cache, keys, values in zip(self.layers, caches, memory.keys, memory.values, strict=True):
            step: Any = layer.step
            x = step(x, (cos, sin, place, valid), cache, keys, values, memory.mask)
        return self.output(self.norm(x)), TextState(position + 1, state.keys, state.values)
