"""The layers of the streaming Conformer as one call for a chunk. Legend: reallm/types.py; S frames of a chunk and its look-ahead."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reallm.encoders._chunked import LayerContext
from reallm.encoders.conformer import ConformerEncoder, ConformerLayer
from reallm.layers.chunk_layout import ChunkLayout, step_layout
from reallm.layers.chunked_attention import AttentionContext
from reallm.layers.convolution import ConvolutionContext
from reallm.layers.rope import rotary_angles
from reallm.streaming.compiled.library import kernels
from reallm.streaming.compiled.linear import LANES, PackedLinear
from reallm.streaming.compiled.native import LinearPointers, Native, NormPointers, norm_pointers

NORMS = ("in_norm", "attention_norm", "convolution_norm", "inner_norm", "out_norm", "norm")
LINEARS = ("in_up", "in_down", "project", "attention_out", "convolution_in", "convolution_out", "out_up", "out_down")


class LayerPointers(ctypes.Structure):
    """kernels.cpp, ConformerLayer."""

    _fields_ = [
        *((name, NormPointers) for name in NORMS),
        *((name, LinearPointers) for name in LINEARS),
        *((name, ctypes.c_void_p) for name in ("depthwise", "depthwise_bias")),
        *((name, ctypes.c_int64) for name in ("dim", "heads", "before", "after")),
    ]


class ContextPointers(ctypes.Structure):
    """kernels.cpp, Context."""

    _fields_ = [field for name in ("keys", "values", "frames") for field in ((name, ctypes.c_void_p), (f"{name}_row", ctypes.c_int64))]


class CompiledConformerLayer(Native):
    """What a Conformer layer gives; of one chunk, as streams bring it, by the kernel. Several are computed as before.

    Args:
        layer: whose linear layers are packed (linear.py).
    """

    def __init__(self, layer: ConformerLayer) -> None:
        super().__init__()
        self.layer, self.init_context = layer, layer.init_context
        self.heads, self.dim = layer.attention.heads, layer.convolution.dim
        self.before, self.after = layer.convolution.before, layer.convolution.after

    def _point(self) -> tuple[LayerPointers, Tensor]:
        first, attention, convolution, last = (
            *(self.layer.feed_forward_in.layers, self.layer.attention),
            *(self.layer.convolution, self.layer.feed_forward_out.layers),
        )
        norms = first[0], attention.norm, convolution.in_norm, convolution.out_norm, last[0], self.layer.norm
        linears = first[1], first[4], attention.in_proj, attention.out_proj, convolution.in_proj, convolution.out_proj, last[1], last[4]
        depthwise, bias = convolution.depthwise.weight.detach()[:, 0, 0].t().contiguous(), convolution.depthwise.bias
        assert bias is not None
        return LayerPointers(
            *(norm_pointers(norm) for norm in norms if isinstance(norm, nn.LayerNorm)),
            *(linear.pointers for linear in linears if isinstance(linear, PackedLinear)),
            *(depthwise.data_ptr(), bias.data_ptr(), self.dim, self.heads, self.before, self.after),
        ), depthwise

    def forward(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """x (B, chunks, S, D) → the same shape, and the context after the last chunk."""
        if x.size(1) > 1 or at.padding:
            y, after = self.layer(x, context, at)
            return y, after
        y, after = self.step(x.squeeze(1), context, at)
        return y.unsqueeze(1), after

    def step(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """One chunk x (B, S, D) → the same shape, and the context after it."""
        y, (after,) = _through([self], x, [context], at)
        return y, after


class CompiledConformerEncoder(ConformerEncoder):
    """A Conformer encoder all of whose layers are one call for a chunk. In parallel it computes by the packed linear layers.

    Args:
        encoder: whose layers are compiled; it is this one's from now on.
    """

    def __init__(self, encoder: ConformerEncoder) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(encoder))

    def _one_chunk(self, x: Tensor, valid: Tensor, left_valid: Tensor, contexts: Any) -> tuple[Tensor, Tensor, Any]:
        at, left_valid = step_layout(self.chunk, valid, left_valid)
        layers: Any = self.layers
        x, after = _through(layers, x, contexts, at)
        return self.output(x[:, : self.chunk.size]), left_valid, after


def _through(
    layers: Sequence[CompiledConformerLayer], x: Tensor, contexts: Sequence[LayerContext], at: ChunkLayout
) -> tuple[Tensor, tuple[LayerContext, ...]]:
    """One chunk x (B, S, D) through layers of one size → the same shape, and their contexts after it."""
    (batch, span, dim), count, first = x.shape, len(layers), layers[0]
    assert x.dtype == torch.float32 and at.mask.dtype == torch.bool and len(contexts) == count
    x, valid, mask = x.contiguous(), at.valid.contiguous(), at.mask if at.mask.stride(3) == 1 else at.mask.contiguous()
    seen, length = at.left + span, first.before + span + first.after
    left, before = (batch, at.left, dim), (batch, first.before, dim)
    parts = [(_rows(c.attention.keys, left), _rows(c.attention.values, left), _rows(c.convolution.frames, before)) for c in contexts]
    context = (ContextPointers * count)(*(ContextPointers(*(p for t in held for p in (t.data_ptr(), t.stride(0)))) for held in parts))
    weights = [layer.pointers for layer in layers]
    y, keys, values = torch.empty_like(x), x.new_empty(count, batch, seen, dim), x.new_empty(count * batch * seen * dim + LANES)
    frames = x.new_empty(count, batch, length, dim)
    cos, sin = _angles(seen, dim // first.heads)
    kernels().reallm_conformer(
        *((ctypes.c_void_p * count)(*(ctypes.addressof(own[0]) for own in weights)), context),
        *(count, batch, span, at.left, x.data_ptr(), y.data_ptr()),
        *(valid.data_ptr(), mask.data_ptr(), mask.stride(0), mask.stride(2) if mask.size(2) > 1 else 0),
        *(keys.data_ptr(), values.data_ptr(), frames.data_ptr(), cos.data_ptr(), sin.data_ptr()),
    )
    kept = slice(at.size, at.size + at.left)
    after = keys[:, :, kept], values[: keys.numel()].view_as(keys)[:, :, kept], frames[:, :, at.size : at.size + first.before]
    return y, tuple(LayerContext(AttentionContext(k, v), ConvolutionContext(f)) for k, v, f in zip(*map(torch.unbind, after), strict=True))


def _rows(held: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, T, D), as ``shape`` says, of float32, whose rows are contiguous, each."""
    assert held.shape == shape and held.dtype == torch.float32
    return held if held.stride(2) == 1 and held.stride(1) == held.size(2) else held.contiguous()


@functools.lru_cache(maxsize=16)
def _angles(count: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles of positions 0 to count - 1, (count, width / 2) each; see layers/rope.py."""
    cos, sin = rotary_angles(torch.arange(count), width)
    return cos[:, width // 2 :].contiguous(), sin[:, width // 2 :].contiguous()
