"""A position of a Llama decoder as one call."""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from reallm.decoders.llama import LlamaDecoder, LlamaState
from reallm.layers.rope import frequencies
from reallm.streaming.compiled.library import kernels
from reallm.streaming.compiled.native import LinearPointers, Native

LINEARS = ("query", "key", "value", "out", "gate", "up", "down")


class LayerPointers(ctypes.Structure):
    """kernels.cpp, LlamaLayer."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("attention_norm", "feed_forward_norm")),
        *((name, LinearPointers) for name in LINEARS),
    ]


class DecoderPointers(ctypes.Structure):
    """kernels.cpp, Llama."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("layer", "norm", "frequency")),
        ("output", LinearPointers),
        *((name, ctypes.c_int64) for name in ("layers", "dim", "heads", "kv_heads", "head_dim", "slots")),
        ("eps", ctypes.c_float),
    ]


class CompiledLlamaDecoder(Native, LlamaDecoder):
    """A Llama decoder whose ``step`` is the kernel's. The other passes are as before, by the packed linear layers.

    Args:
        decoder: whose linear layers are packed (linear.py); it is this one's from now on.
    """

    def __init__(self, decoder: LlamaDecoder) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(decoder))

    def _point(self) -> tuple[DecoderPointers, Any, Tensor]:
        layers: Any = self.layers
        pointers = (LayerPointers * len(layers))()
        for own, layer in zip(pointers, layers, strict=True):
            of, inner = layer.attention, layer.feed_forward
            linears = of.query, of.key, of.value, of.out, inner.gate, inner.up, inner.down
            norms = layer.attention_norm, layer.feed_forward_norm
            own.__init__(*(norm.weight.data_ptr() for norm in norms), *(linear.pointers for linear in linears))
        width, output = self._attention.head_dim, self.output
        frequency = frequencies(width, self.rope_base)
        sizes = len(layers), self.input_dim, self._attention.heads, self._attention.kv_heads, width, self.window or self.capacity
        assert isinstance(output, Native) and self.norm.eps is not None
        made = DecoderPointers(
            *(ctypes.addressof(pointers), self.norm.weight.data_ptr(), frequency.data_ptr(), output.pointers), *sizes, self.norm.eps
        )
        return made, pointers, frequency

    def step(self, inputs: Tensor, active: Tensor, state: LlamaState) -> tuple[Tensor, LlamaState]:
        """One position of each active row: inputs (B, D), active (B,) → logits (B, V), state."""
        position = state.position.contiguous()
        self.require_room(active, position)
        inputs = inputs.contiguous()
        keys, values = (tuple(ring.contiguous() for ring in rings) for rings in (state.keys, state.values))
        assert inputs.dtype == keys[0].dtype == torch.float32
        logits = inputs.new_empty(inputs.size(0), self.vocab_size)
        rings = [(ctypes.c_void_p * len(held))(*(ring.data_ptr() for ring in held)) for held in (keys, values)]
        kernels().reallm_llama_step(
            *(ctypes.byref(self.pointers[0]), inputs.size(0), inputs.data_ptr(), position.data_ptr(), *rings, logits.data_ptr())
        )
        return logits, LlamaState(position + active, keys, values)
