"""The streaming Conformer encoder. Legend: reallm/types.py; C chunk size, R look-ahead, in encoder frames."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from reallm.encoders._chunked import ChunkedEncoder, LayerContext
from reallm.errors import at_least
from reallm.layers.chunk_layout import ChunkLayout
from reallm.layers.chunked_attention import ChunkedAttention
from reallm.layers.convolution import ConvolutionModule
from reallm.layers.dropout import Dropout
from reallm.layers.feed_forward import FeedForward
from reallm.layers.subsampling import StridedWindow
from reallm.protocols import ChunkSpec
from reallm.registry import register


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
        return self._run(x, context, at, self.attention, self.convolution)

    def step(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """One chunk x (B, C + R, D) → the same shape, and the context after it."""
        return self._run(x, context, at, self.attention.step, self.convolution.step)

    def _run(self, x: Tensor, context: LayerContext, at: ChunkLayout, attend: Any, convolve: Any) -> tuple[Tensor, LayerContext]:
        x = torch.add(x, self.feed_forward_in(x), alpha=0.5)
        y, attention = attend(x, context.attention, at)
        x = x + y
        y, convolution = convolve(x, context.convolution, at)
        x = x + y
        x = torch.add(x, self.feed_forward_out(x), alpha=0.5)
        return self.norm(x), LayerContext(attention, convolution)


@register("encoder", "conformer")
class ConformerEncoder(ChunkedEncoder):
    """Conformer (Gulati et al., 2020) with chunked attention, hard-copied look-ahead and rotary positions.

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

    Raises InputError for a size below 1.
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
        at_least(1, input_dim=input_dim, dim=dim, layers=layers, heads=heads, hidden=hidden, kernel=kernel, stride=stride)
        super().__init__(
            input_dim,
            dim,
            ChunkSpec(chunk_size, left, right),
            StridedWindow(input_dim, dim, stride, context),
            nn.Sequential(nn.SiLU(), nn.Linear(dim, dim), nn.LayerNorm(dim), Dropout(dropout)),
            (ConformerLayer(dim, heads, hidden, kernel, convolution, dropout) for _ in range(layers)),
        )

    @classmethod
    def tiny(cls) -> Self:
        """Two layers, chunks of 4 frames with 5 to the left and 2 to the right."""
        return cls(input_dim=8, dim=16, layers=2, heads=2, hidden=24, kernel=3, chunk_size=4, left=5, right=2, dropout=0.0)
