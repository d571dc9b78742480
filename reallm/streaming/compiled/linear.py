"""Linear layers whose weights are packed in the order in which they are read. M rows.

A block of columns holds as many as have a register each to be summed in, so that a weight is read once for six rows::

    weight (D_out, D_in)     packed: blocks of (D_in, block) numbers, the last block as wide as it must be
"""

import ctypes

import torch
from torch import Tensor, nn

from reallm.streaming.compiled.library import kernels
from reallm.streaming.compiled.native import LinearPointers, Native, require_float32

LANES = 16  # numbers of a vector


class PackedLinear(Native):
    """(…, D_in) → (…, D_out), both float32, in the calling thread alone: for few rows, of one stream or some.

    Args:
        linear: whose weights are taken.

    Raises InputError for weights that are not in float32 on the CPU, and as ``library.kernels``.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        require_float32(linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        missing = -linear.out_features % LANES
        weight = nn.functional.pad(linear.weight.detach(), (0, 0, 0, missing))
        blocks = torch.split(weight, kernels().reallm_block())
        self.register_buffer("weight", torch.cat([block.t().flatten() for block in blocks]))
        self.register_buffer("bias", None if linear.bias is None else nn.functional.pad(linear.bias.detach(), (0, missing)))
        self.weight: Tensor
        self.bias: Tensor | None

    def _point(self) -> LinearPointers:
        bias = None if self.bias is None else self.bias.data_ptr()
        return LinearPointers(self.weight.data_ptr(), bias, self.in_features, self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], self.out_features)
        kernels().reallm_linear(ctypes.byref(self.pointers), x.data_ptr(), x.numel() // self.in_features, y.data_ptr())
        return y
