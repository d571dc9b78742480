"""Stacked encoder frames as speech embeddings."""

from typing import Self

from torch import nn

from reallm.adapters.windowed import WindowedAdapter
from reallm.errors import at_least
from reallm.layers.subsampling import StridedWindow
from reallm.registry import register


@register("adapter", "stack")
class StackingAdapter(WindowedAdapter):
    """``stride`` consecutive encoder frames side by side, mapped linearly, or by a perceptron with one hidden layer.

    Args:
        input_dim: D.
        output_dim: D_lm.
        stride: encoder frames per speech embedding.
        hidden: width of the hidden layer; 0 = a linear map alone.

    Raises InputError for a size below 1, but for ``hidden``.
    """

    def __init__(self, input_dim: int, output_dim: int, stride: int = 2, hidden: int = 0) -> None:
        at_least(1, input_dim=input_dim, output_dim=output_dim, stride=stride)
        at_least(0, hidden=hidden)
        window = StridedWindow(input_dim, hidden or output_dim, stride)
        head = nn.Sequential(nn.GELU(), nn.Linear(hidden, output_dim)) if hidden else nn.Identity()
        super().__init__(window, head, output_dim)

    @classmethod
    def tiny(cls) -> Self:
        """Three frames an embedding, through a hidden layer."""
        return cls(input_dim=6, output_dim=8, stride=3, hidden=10)
