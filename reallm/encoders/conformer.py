"""The streaming Conformer encoder. Legend: reallm/types.py; C chunk size, R look-ahead, in encoder frames."""

from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from reallm.layers.chunk_layout import ChunkLayout, chunks_of, layout
from reallm.layers.chunked_attention import AttentionContext, ChunkedAttention
from reallm.layers.convolution import ConvolutionContext, ConvolutionModule
from reallm.layers.dropout import Dropout
from reallm.layers.feed_forward import FeedForward
from reallm.layers.subsampling import StridedWindow, WindowState
from reallm.protocols import ChunkSpec
from reallm.registry import register
from reallm.streaming.context import length_mask, mask_padding
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState, where


@dataclass
class LayerContext(StreamingState):
    """What one layer knows of the frames left of a chunk."""

    attention: AttentionContext
    convolution: ConvolutionContext


@dataclass
class ConformerState(StreamingState):
    """A stream between two chunks."""

    subsampling: WindowState
    pending: Tensor  # (B, R, D), subsampled frames that served as look-ahead only
    pending_valid: Tensor  # (B, R) bool
    left_valid: Tensor  # (B, left) bool, left frames that lie inside the stream
    layers: tuple[LayerContext, ...]


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, LayerNorm (Gulati et al., 2020, section 2.4)."""

    def __init__(self, dim: int, heads: int, hidden: int, kernel: int, reach: Literal["causal", "chunk"], dropout: float) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(dim, hidden, dropout)
        self.attention = ChunkedAttention(dim, heads, dropout)
        self.convolution = ConvolutionModule(dim, kernel, reach, dropout)
        self.feed_forward_out = FeedForward(dim, hidden, dropout)
        self.norm = nn.LayerNorm(dim)

    def init_context(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> LayerContext:
        """The context before the start of a stream."""
        return LayerContext(
            self.attention.init_context(batch, left, device, dtype),
            self.convolution.init_context(batch, device, dtype),
        )

    def forward(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """x (B, chunks, C + R, D) → the same shape, and the context after the last chunk."""
        x = x + 0.5 * self.feed_forward_in(x)
        y, attention = self.attention(x, context.attention, at)
        x = x + y
        y, convolution = self.convolution(x, context.convolution, at)
        x = x + y
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm(x), LayerContext(attention, convolution)


@register("encoder", "conformer")
class ConformerEncoder(nn.Module):
    """Conformer (Gulati et al., 2020) with chunked attention, hard-copied look-ahead and rotary positions.

    ``step`` takes a whole chunk, chunk.size · stride feature frames, or nothing; only a final row may bring a part of
    one. It returns chunk.size + chunk.right frames at most. ``chunk`` may be set to another ChunkSpec between streams.

    Args:
        input_dim: F.
        dim: D.
        layers: number of Conformer layers.
        heads: attention heads; ``dim`` must be a multiple of twice as many.
        hidden: width of the feed-forward modules.
        kernel: frames of the depthwise convolution.
        convolution: ``causal``, or ``chunk`` (both sides, but bounded by the chunk).
        stride: feature frames per encoder frame.
        context: feature frames before its own that an encoder frame's subsampling sees.
        chunk_size: C of streaming.
        left: encoder frames before the chunk that are attended to.
        right: R, encoder frames after the chunk that are attended to.
        dropout: probability.
    """

    def __init__(
        self,
        input_dim: int,
        dim: int = 144,
        layers: int = 4,
        heads: int = 4,
        hidden: int = 288,
        kernel: int = 9,
        convolution: Literal["causal", "chunk"] = "causal",
        stride: int = 4,
        context: int = 4,
        chunk_size: int = 8,
        left: int = 32,
        right: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.output_dim = dim
        self.chunk = ChunkSpec(chunk_size, left, right)
        self.subsampling = StridedWindow(input_dim, dim, stride, context)
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim), nn.LayerNorm(dim), Dropout(dropout))
        self.layers = nn.ModuleList(ConformerLayer(dim, heads, hidden, kernel, convolution, dropout) for _ in range(layers))

    @classmethod
    def tiny(cls) -> Self:
        """Two layers, chunks of 4 frames with 5 to the left and 2 to the right."""
        return cls(input_dim=8, dim=16, layers=2, heads=2, hidden=24, kernel=3, chunk_size=4, left=5, right=2, dropout=0.0)

    @property
    def geometry(self) -> Geometry:
        """In feature frames; the look-ahead is that of the first frame of a chunk."""
        return Geometry(self.subsampling.stride, (self.chunk.size - 1 + self.chunk.right) * self.subsampling.stride)

    def forward(self, feats: Tensor, lens: Tensor, chunk: ChunkSpec | None = None) -> tuple[Tensor, Tensor]:
        """feats (B, T, F) → enc (B, N, D), lens (B,); ``chunk`` None: every frame sees the whole utterance."""
        x, lens = self.subsampling(feats, lens)
        x = mask_padding(self.embedding(x), lens)
        batch, frames = x.shape[:2]
        spec = chunk or ChunkSpec(max(frames, 1), 0)
        chunks = max(1, -(-(frames + spec.right) // spec.size))
        # Blocks of about as many queries as left frames: few copies of keys, few masked scores.
        group = 1 if spec.right else max(1, min(chunks, spec.left // spec.size))
        blocks = chunks_of(x, spec, chunks)
        valid = chunks_of(length_mask(lens, frames), spec, chunks)
        at = layout(spec, valid, valid.new_zeros(batch, spec.left), group)
        for layer, context in zip(self.layers, self._init_contexts(batch, spec.left, x.device, x.dtype), strict=True):
            blocks, _ = layer(blocks, context, at)
        enc = blocks[:, :, : spec.size].flatten(1, 2)[:, spec.right : spec.right + frames]
        return mask_padding(enc, lens), lens

    def _init_contexts(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> tuple[LayerContext, ...]:
        layers: Any = self.layers
        return tuple(layer.init_context(batch, left, device, dtype) for layer in layers)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> ConformerState:
        """The state of ``batch`` new streams."""
        left, right = self.chunk.left, self.chunk.right
        return ConformerState(
            self.subsampling.init_state(batch, device, dtype),
            torch.zeros(batch, right, self.output_dim, device=device, dtype=dtype),
            torch.zeros(batch, right, device=device, dtype=torch.bool),
            torch.zeros(batch, left, device=device, dtype=torch.bool),
            self._init_contexts(batch, left, device, dtype),
        )

    def _one_chunk(
        self, x: Tensor, valid: Tensor, left_valid: Tensor, contexts: tuple[LayerContext, ...]
    ) -> tuple[Tensor, Tensor, tuple[LayerContext, ...]]:
        """x (B, C + R, D), valid (B, C + R) → (B, C, D), and the next ``left_valid`` and contexts."""
        size = self.chunk.size
        at = layout(self.chunk, valid.unsqueeze(1), left_valid)
        block, after = x.unsqueeze(1), []
        for layer, context in zip(self.layers, contexts, strict=True):
            block, context = layer(block, context, at)
            after.append(context)
        return block[:, 0, :size], torch.cat([left_valid, valid[:, :size]], dim=1)[:, size:], tuple(after)

    def step(self, feats: Tensor, lens: Tensor, final: Tensor, state: ConformerState) -> tuple[Tensor, Tensor, ConformerState]:
        """feats (B, C · stride, F) → enc (B, C + R, D), lens (B,), state."""
        size, right = self.chunk.size, self.chunk.right
        x, lens, subsampling = self.subsampling.step(feats, lens, final, state.subsampling)
        x = mask_padding(self.embedding(x), lens)
        active = (lens > 0) | final
        window = torch.cat([state.pending, x], dim=1)  # (B, R + C, D)
        valid = torch.cat([state.pending_valid, length_mask(lens, size)], dim=1)
        enc, left_valid, layers = self._one_chunk(window, valid, state.left_valid, state.layers)
        emitted = (valid[:, :size] & active.unsqueeze(1)).sum(1)
        if right and bool(final.any()):  # what served as look-ahead has its own turn when nothing follows
            rest = (0, 0, 0, size)
            rest_valid = nn.functional.pad(valid[:, size:], rest[2:])
            enc_rest, _, _ = self._one_chunk(nn.functional.pad(window[:, size:], rest), rest_valid, left_valid, layers)
            enc = torch.cat([enc, enc_rest[:, :right]], dim=1)
            emitted = torch.where(final, valid.sum(1), emitted)
        else:
            enc = nn.functional.pad(enc, (0, 0, 0, right))
        # A new stream has nothing pending: its first chunk begins with R empty frames, which are left out.
        skipped = (~state.pending_valid).sum(1, keepdim=True)
        index = (torch.arange(size + right, device=x.device) + skipped).clamp_max(size + right - 1)
        enc = mask_padding(enc.gather(1, index.unsqueeze(-1).expand(-1, -1, enc.size(2))), emitted)
        after = ConformerState(subsampling, window[:, size:], valid[:, size:], left_valid, layers)
        return enc, emitted, where(active, after, state)
