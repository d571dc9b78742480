"""What modules with a kernel share: pointers to their weights, which are found anew where these move."""

import ctypes
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from reallm.errors import InputError


class LinearPointers(ctypes.Structure):
    """kernels.cpp, Linear."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "sums")),
        *((name, ctypes.c_int64) for name in ("k", "n")),
    ]


class NormPointers(ctypes.Structure):
    """kernels.cpp, Norm."""

    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float)]


class Native(nn.Module):
    """A module that gives pointers to its weights to a kernel. Subclasses define ``_point``."""

    inference_only = True
    _pointers: Any = None

    def _point(self) -> Any:
        """What the kernel is given: a structure of pointers, and whatever they point to that is held by nobody else."""
        raise NotImplementedError

    @property
    def pointers(self) -> Any:
        """What ``_point`` found."""
        if self._pointers is None:
            require_float32(self)
            self._pointers = self._point()
        return self._pointers

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pointers = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pointers": None}  # a copy has weights of its own


def require_float32(module: nn.Module) -> None:
    """Raises InputError unless all numbers of a module lie on the CPU, in float32 where they are no integers."""
    for tensor in (*module.parameters(), *module.buffers()):
        kind = f"on '{tensor.device}'" if tensor.device.type != "cpu" else str(tensor.dtype).removeprefix("torch.")
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise InputError(f"compiled layers of a system {kind}: they are for the CPU, in float32")


def norm_pointers(norm: nn.LayerNorm) -> NormPointers:
    """Of a LayerNorm with weight and bias."""
    return NormPointers(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)
