"""A position of a Llama decoder, or several, as one call."""

import ctypes
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from reallm.decoders.llama import Extension, LlamaDecoder, LlamaState
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
    """A Llama decoder whose ``step``, ``extend`` and ``accept`` are the kernel's. In parallel it computes by the packed linear layers.

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
        """One position of each active row: inputs (B, D), active (B,) → logits (B, V), zeros for the others, and state."""
        self.require_room(active, state.position)
        state = _contiguous(state)
        logits = self._run(inputs.unsqueeze(1), state, active, None).squeeze(1)
        return logits, LlamaState(state.position + active, state.keys, state.values)

    def extend(self, inputs: Tensor, state: LlamaState) -> tuple[Tensor, Extension]:
        """The next K positions of all rows in one pass: inputs (B, K, D) → logits (B, K, V), and what ``accept`` takes; no state changes.

        Raises InputError for more positions than the window has.
        """
        self.require_window(inputs.size(1))
        own = self.pointers[0]
        new = inputs.new_empty(2 * own.layers, inputs.size(0), own.kv_heads, inputs.size(1), own.head_dim).unbind()
        extension = Extension(new[: own.layers], new[own.layers :])
        return self._run(inputs, _contiguous(state), None, extension), extension

    def accept(self, extension: Extension, count: Tensor, state: LlamaState) -> LlamaState:
        """The state after the first ``count`` (B,) positions of an extension of it; the rings are written into."""
        state, count = _contiguous(state), count.contiguous()
        new = [tuple(part.contiguous() for part in parts) for parts in (extension.keys, extension.values)]
        held, ahead = self.pointers, new[0][0].size(2)
        self._require(state, batch=len(count))
        self._require_layers(new, len(count), ahead)
        assert count.dtype == torch.int64 and bool((count <= ahead).all())
        kernels().reallm_llama_accept(
            *(ctypes.byref(held[0]), len(count), ahead, state.position.data_ptr(), count.data_ptr()),
            *map(_pointers, (state.keys, state.values, *new)),
        )
        return LlamaState(state.position + count, state.keys, state.values)

    def _require(self, state: LlamaState, batch: int) -> None:
        """What the kernel takes for granted of a state."""
        assert state.position.shape == (batch,) and state.position.dtype == torch.int64
        self._require_layers((state.keys, state.values), batch, self.window or self.capacity)

    def _require_layers(self, keys_and_values: Iterable[tuple[Tensor, ...]], batch: int, size: int) -> None:
        """What the kernel takes for granted of keys and values, ``size`` of them a row."""
        own = self.pointers[0]
        for parts in keys_and_values:
            assert len(parts) == own.layers
            assert all(part.shape == (batch, own.kv_heads, size, own.head_dim) and part.dtype == torch.float32 for part in parts)

    def _run(self, inputs: Tensor, state: LlamaState, active: Tensor | None, extension: Extension | None) -> Tensor:
        """inputs (B, K, D) → logits (B, K, V), zeros where a row is not active; without an extension the rings are written into."""
        inputs, active = inputs.contiguous(), None if active is None else active.contiguous()
        self._require(state, inputs.size(0))
        held = self.pointers
        assert inputs.dtype == torch.float32 and inputs.size(2) == self.input_dim and (active is None or active.dtype == torch.bool)
        logits = inputs.new_empty(*inputs.shape[:2], self.vocab_size)
        new = (None, None) if extension is None else map(_pointers, (extension.keys, extension.values))
        kernels().reallm_llama(
            *(ctypes.byref(held[0]), *inputs.shape[:2], inputs.data_ptr(), None if active is None else active.data_ptr()),
            *(state.position.data_ptr(), _pointers(state.keys), _pointers(state.values), *new, logits.data_ptr()),
        )
        return logits


def _contiguous(state: LlamaState) -> LlamaState:
    """A state whose tensors the kernel can take."""
    return LlamaState(state.position.contiguous(), *(tuple(ring.contiguous() for ring in rings) for rings in (state.keys, state.values)))


def _pointers(tensors: tuple[Tensor, ...]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*map(Tensor.data_ptr, tensors))
