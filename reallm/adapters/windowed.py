"""What the adapters share: a strided window of encoder frames, then a map of each embedding. Legend: reallm/types.py."""

import torch
from torch import Tensor, nn

from reallm.layers.subsampling import StridedWindow, WindowState
from reallm.streaming.context import mask_padding
from reallm.streaming.geometry import Geometry


class WindowedAdapter(nn.Module):
    """Speech embedding m is ``head`` of the window that ends with encoder frame (m + 1) · stride - 1."""

    def __init__(self, window: StridedWindow, head: nn.Module, output_dim: int) -> None:
        super().__init__()
        self.input_dim = window.input_dim
        self.output_dim = output_dim
        self.stride = window.stride
        self.geometry = Geometry(stride=window.stride)
        self.window = window
        self.head = head

    def forward(self, enc: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """enc (B, N, D) → embeddings (B, M, D_lm), lens (B,)."""
        x, lens = self.window(enc, lens)
        return mask_padding(self.head(x), lens), lens

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> WindowState:
        """The state of ``batch`` new streams."""
        return self.window.init_state(batch, device, dtype)

    def step(self, enc: Tensor, lens: Tensor, final: Tensor, state: WindowState) -> tuple[Tensor, Tensor, WindowState]:
        """enc (B, N_c, D) → embeddings (B, ceil(N_c / stride), D_lm), lens (B,), state."""
        x, lens, state = self.window.step(enc, lens, final, state)
        return mask_padding(self.head(x), lens), lens, state
