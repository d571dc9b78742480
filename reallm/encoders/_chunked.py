"""Encoders that work through chunks of frames with left context and look-ahead. Legend: reallm/types.py; C chunk size, R look-ahead."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from reallm.layers.chunk_layout import chunks_of, layout, step_layout
from reallm.layers.chunked_attention import AttentionContext
from reallm.layers.convolution import ConvolutionContext
from reallm.protocols import ChunkSpec
from reallm.streaming.context import length_mask, mask_padding
from reallm.streaming.geometry import Geometry
from reallm.streaming.host import may_end
from reallm.streaming.state import StreamingState, advance


@dataclass
class ChunkedState(StreamingState):
    """A stream between two chunks."""

    subsampling: StreamingState
    pending: Tensor  # (B, R, D), subsampled frames that served as look-ahead only
    pending_valid: Tensor  # (B, R) bool
    left_valid: Tensor  # (B, left) bool, left frames that lie inside the stream
    layers: tuple[StreamingState, ...]


@dataclass
class LayerContext(StreamingState):
    """What one layer of attention and convolution knows of the frames left of a chunk."""

    attention: AttentionContext
    convolution: ConvolutionContext


class ChunkedEncoder(nn.Module):
    """Subsampling, an embedding of each frame, and layers in the layout of :mod:`reallm.layers.chunk_layout`.

    ``step`` takes a whole chunk, chunk.size · stride feature frames, or nothing; only a final row may bring a part of
    one. It returns chunk.size + chunk.right frames at most. ``chunk`` may be set to another ChunkSpec between streams.

    Args:
        input_dim: F.
        dim: D.
        chunk: of streaming.
        subsampling: feature frames (B, T, F) to frames (B, N, …), with ``step`` and ``geometry``, and no look-ahead.
        embedding: its outputs to (B, N, D), each on its own.
        layers: each with ``init_context(batch, left, device, dtype)``, a call x (B, chunks, C + R, D), its context, the layout →
            the same shape, and the context after the last chunk; and ``step``, which is that for one chunk, x (B, C + R, D).
        output: what becomes of each frame after the last layer.
    """

    def __init__(
        self,
        input_dim: int,
        dim: int,
        chunk: ChunkSpec,
        subsampling: nn.Module,
        embedding: nn.Module,
        layers: Iterable[nn.Module],
        output: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.output_dim = dim
        self.chunk = chunk
        self.subsampling: Any = subsampling
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.output = nn.Identity() if output is None else output

    @property
    def geometry(self) -> Geometry:
        """In feature frames; the look-ahead is that of the first frame of a chunk."""
        stride = self.subsampling.geometry.stride
        return Geometry(stride, (self.chunk.size - 1 + self.chunk.right) * stride)

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
        return mask_padding(self.output(enc), lens), lens

    def _init_contexts(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> tuple[StreamingState, ...]:
        layers: Any = self.layers
        return tuple(layer.init_context(batch, left, device, dtype) for layer in layers)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> ChunkedState:
        """The state of ``batch`` new streams."""
        left, right = self.chunk.left, self.chunk.right
        return ChunkedState(
            self.subsampling.init_state(batch, device, dtype),
            torch.zeros(batch, right, self.output_dim, device=device, dtype=dtype),
            torch.zeros(batch, right, device=device, dtype=torch.bool),
            torch.zeros(batch, left, device=device, dtype=torch.bool),
            self._init_contexts(batch, left, device, dtype),
        )

    def _one_chunk(
        self, x: Tensor, valid: Tensor, left_valid: Tensor, contexts: tuple[StreamingState, ...]
    ) -> tuple[Tensor, Tensor, tuple[StreamingState, ...]]:
        """x (B, C + R, D), valid (B, C + R) → (B, C, D), and the next ``left_valid`` and contexts."""
        at, left_valid = step_layout(self.chunk, valid, left_valid)
        after, layers = [], cast(Any, self.layers)
        for layer, context in zip(layers, contexts, strict=True):
            x, context = layer.step(x, context, at)
            after.append(context)
        return self.output(x[:, : self.chunk.size]), left_valid, tuple(after)

    def step(self, feats: Tensor, lens: Tensor, final: Tensor, state: ChunkedState) -> tuple[Tensor, Tensor, ChunkedState]:
        """feats (B, C · stride, F) → enc (B, C + R, D), lens (B,), state."""
        size, right = self.chunk.size, self.chunk.right
        x, lens, subsampling = self.subsampling.step(feats, lens, final, state.subsampling)
        x = mask_padding(self.embedding(x), lens)
        active = (lens > 0) | final
        if not right:
            enc, left_valid, layers = self._one_chunk(x, length_mask(lens, size), state.left_valid, state.layers)
            after = ChunkedState(subsampling, state.pending, state.pending_valid, left_valid, layers)
            return mask_padding(enc, lens), lens, advance(active, after, state)
        window = torch.cat([state.pending, x], dim=1)  # (B, R + C, D)
        valid = torch.cat([state.pending_valid, length_mask(lens, size)], dim=1)
        # Of a row that rests nothing is kept: layers may leave out what has no valid frame.
        enc, left_valid, layers = self._one_chunk(window, valid & active.unsqueeze(1), state.left_valid, state.layers)
        emitted = (valid[:, :size] & active.unsqueeze(1)).sum(1)
        if may_end(final):  # look-ahead has its own turn when nothing follows
            rest = (0, 0, 0, size)
            rest_valid = nn.functional.pad(valid[:, size:] & final.unsqueeze(1), rest[2:])
            enc_rest, _, _ = self._one_chunk(nn.functional.pad(window[:, size:], rest), rest_valid, left_valid, layers)
            enc = torch.cat([enc, enc_rest[:, :right]], dim=1)
            emitted = torch.where(final, valid.sum(1), emitted)
        else:
            enc = nn.functional.pad(enc, (0, 0, 0, right))
        # A new stream has nothing pending: its first chunk begins with R empty frames, which are left out.
        skipped = (~state.pending_valid).sum(1, keepdim=True)
        index = (torch.arange(size + right, device=x.device) + skipped).clamp_max(size + right - 1)
        enc = mask_padding(enc.gather(1, index.unsqueeze(-1).expand(-1, -1, enc.size(2))), emitted)
        after = ChunkedState(subsampling, window[:, size:], valid[:, size:], left_valid, layers)
        return enc, emitted, advance(active, after, state)
