"""Linear layers whose weights are packed in the order in which they are read. M rows.

A block of columns holds as many as have a register each to be summed in, so that a weight is read once for six rows::

    weight (D_out, D_in)     packed: blocks of (D_in, block) numbers, the last block as wide as it must be
                             int8:   blocks of (D_in / 4, block, 4), since an instruction sums four products; D_in with zeros behind
"""

import ctypes

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from reallm.errors import InputError
from reallm.layers.int8_linear import Int8Linear
from reallm.streaming.compiled.library import kernels
from reallm.streaming.compiled.native import LinearPointers, Native, require_float32

LANES = 16  # numbers of a vector


class PackedLinear(Native):
    """(…, D_in) → (…, D_out), both float32, in the calling thread alone: for few rows, of one stream or some.

    Args:
        linear: whose weights are taken, float32 or int8 ones.

    Raises InputError for weights that are not on the CPU, or in another type, and as ``library.kernels``; and where it is used, if it comes
    from a processor with registers of another size.
    """

    def __init__(self, linear: nn.Linear | Int8Linear) -> None:
        super().__init__()
        require_float32(linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        missing = -linear.out_features % LANES
        self.block = kernels().reallm_block()
        together = 4 if isinstance(linear, Int8Linear) else 1  # numbers of a column that lie side by side
        weight = pad(linear.weight.detach(), (0, -linear.in_features % together, 0, missing))
        blocks = torch.split(weight.view(weight.size(0), -1, together), self.block)
        scale, sums = (
            (pad(linear.scale, (0, missing)), weight.sum(1, dtype=torch.int32)) if isinstance(linear, Int8Linear) else (None, None)
        )
        self.register_buffer("weight", torch.cat([block.transpose(0, 1).flatten() for block in blocks]))
        self.register_buffer("bias", None if linear.bias is None else pad(linear.bias.detach(), (0, missing)))
        self.register_buffer("scale", scale)
        self.register_buffer("sums", sums)
        self.weight: Tensor
        self.bias: Tensor | None
        self.scale: Tensor | None
        self.sums: Tensor | None

    def _point(self) -> LinearPointers:
        if self.block != kernels().reallm_block():
            raise InputError("linear layers that were packed on another kind of processor: compile the layers of the system here")
        tensors = self.weight, self.bias, self.scale, self.sums
        return LinearPointers(*(None if t is None else t.data_ptr() for t in tensors), self.in_features, self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32 and x.size(-1) == self.in_features
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], self.out_features)
        kernels().reallm_linear(ctypes.byref(self.pointers), x.data_ptr(), x.numel() // self.in_features, y.data_ptr())
        return y
