"""Strided convolution as speech embeddings."""

from typing import Self

from torch import nn

from reallm.adapters.windowed import WindowedAdapter
from reallm.errors import InputError
from reallm.layers.subsampling import StridedWindow
from reallm.registry import register


@register("adapter", "conv")
class ConvolutionalAdapter(WindowedAdapter):
    """A causal strided convolution whose windows overlap, LayerNorm, GELU and a linear map.

    Args:
        input_dim: D.
        output_dim: D_lm.
        stride: encoder frames per speech embedding.
        kernel: encoder frames that an embedding sees, its own ``stride`` and those before.

    Raises InputError when the kernel is shorter than the stride.
    """

    def __init__(self, input_dim: int, output_dim: int, stride: int = 2, kernel: int = 4) -> None:
        if kernel < stride:
            raise InputError(f"kernel {kernel} is shorter than stride {stride} and would skip frames: make it {stride} or more")
        window = StridedWindow(input_dim, output_dim, stride, context=kernel - stride)
        head = nn.Sequential(nn.LayerNorm(output_dim), nn.GELU(), nn.Linear(output_dim, output_dim))
        super().__init__(window, head, output_dim)

    @classmethod
    def tiny(cls) -> Self:
        """Two frames an embedding, which sees five."""
        return cls(input_dim=6, output_dim=8, stride=2, kernel=5)
