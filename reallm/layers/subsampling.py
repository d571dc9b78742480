"""A linear map of a strided window of the past: lowers the frame rate without look-ahead. Legend: reallm/types.py.

Output n sees ``context`` inputs before its own period and the period itself::

    inputs     ··· 0 1 2 3 4 5 6 7 8       stride = 4, context = 2
    output 0   ---------                   dots: zeros before the start; after the end: zeros too
    output 1           -----------
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reallm.errors import at_least
from reallm.streaming.context import mask_padding, push_context
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState


@dataclass
class WindowState(StreamingState):
    """The inputs that the next window overlaps with."""

    context: Tensor  # (B, context, F)


class StridedWindow(nn.Module):
    """(B, T, F) → (B, ceil(T / stride), D): a causal strided convolution, written as one matrix product.

    Args:
        input_dim: F.
        output_dim: D.
        stride: inputs per output.
        context: inputs before its own period that an output sees as well.

    Raises InputError for a size below 1.
    """

    def __init__(self, input_dim: int, output_dim: int, stride: int, context: int = 0) -> None:
        at_least(1, input_dim=input_dim, output_dim=output_dim, stride=stride)
        at_least(0, context=context)
        super().__init__()
        self.input_dim = input_dim
        self.stride = stride
        self.context = context
        self.geometry = Geometry(stride=stride)
        self.linear = nn.Linear((stride + context) * input_dim, output_dim)

    def _project(self, padded: Tensor) -> Tensor:
        windows = padded.unfold(1, self.stride + self.context, self.stride)  # (B, N, F, window)
        return self.linear(windows.transpose(2, 3).flatten(2))

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, F) → (B, N, D), of which lens (B,) are valid; the others are not zeroed."""
        outputs = self.geometry.outputs(x.size(1))
        missing = max(outputs, 1) * self.stride - x.size(1)  # one window at least: nothing at all can be unfolded too
        padded = nn.functional.pad(mask_padding(x, lens), (0, 0, self.context, missing))
        return self._project(padded)[:, :outputs], -(-lens // self.stride)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> WindowState:
        """The state of ``batch`` new streams."""
        return WindowState(torch.zeros(batch, self.context, self.input_dim, device=device, dtype=dtype))

    def step(self, x: Tensor, lens: Tensor, final: Tensor, state: WindowState) -> tuple[Tensor, Tensor, WindowState]:
        """x (B, T_c, F), of any size → (B, ceil(T_c / stride), D), lens (B,), state."""
        window, context = push_context(state.context, mask_padding(x, lens), lens)
        missing = -x.size(1) % self.stride
        window = nn.functional.pad(window, (0, 0, 0, missing)) if missing else window
        return self._project(window), -(-lens // self.stride), WindowState(context)
