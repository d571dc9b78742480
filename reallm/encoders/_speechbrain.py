"""SpeechBrain's convolutional front end and Conformer layers, over rows of any age. Legend: reallm/types.py; H heads, E width of one.

Modules and weights are SpeechBrain's own; what is here is how they are called. Its ``forward_streaming`` passes no mask, and
its contexts begin as None and grow.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reallm.encoders._chunked import LayerContext
from reallm.layers.chunk_layout import ChunkLayout
from reallm.layers.chunked_attention import AttentionContext, joined_heads, key_blocks, padded_sequence, query_blocks, split_heads
from reallm.layers.convolution import ConvolutionContext, convolution_windows
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState


@dataclass
class FrontEndState(StreamingState):
    """The last input of each convolution; before the first one there is none."""

    begins: Tensor  # (B,) bool
    before: tuple[Tensor, ...]  # a block: (B, 1, F) or (B, 1, F, channels)


class StreamingFrontEnd(nn.Module):
    """ConvolutionFrontEnd with one 3 × 3 convolution of stride 2 a block, and no residuals: (B, T, F) → (B, N, F', channels).

    Each block sees one input before its own two and, as SpeechBrain pads, a mirror image beyond either end of a row. It looks at nothing
    after its own period.

    Args:
        cnn: the ConvolutionFrontEnd; its weights stay there.
        input_dim: F.
    """

    def __init__(self, cnn: nn.Module, input_dim: int) -> None:
        super().__init__()
        self.cnn = cnn
        self.geometry = Geometry(2 ** len(self._blocks))
        self.widths: list[tuple[int, ...]] = []  # of one input of each block
        x = torch.zeros(1, 2 * self.geometry.stride, input_dim)
        with torch.no_grad():
            for block in self._blocks:
                self.widths.append(tuple(x.shape[2:]))
                x = block(x)
        self.output_shape = tuple(x.shape[2:])  # (F', channels)

    @property
    def _blocks(self) -> list[Any]:
        return list(self.cnn.children())

    def _convolve(self, block: Any, x: Tensor, lens: Tensor, begins: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, F, …), lens (B,) → (B, ceil(T / 2), F', channels), and the last input of each row (B, 1, F, …)."""
        rows = torch.arange(x.size(0), device=x.device)
        second = x[rows, (lens - 1).clamp(0, 1)].unsqueeze(1)  # a row of one input has nothing else to mirror
        begins = begins.view(-1, *[1] * (x.dim() - 1))
        sequence = torch.cat([torch.where(begins, second, before), x, torch.zeros_like(before)], dim=1)
        sequence[rows, lens + 1] = sequence[rows, (lens - 1).clamp(min=0)]
        after = sequence[rows, lens].unsqueeze(1)
        image = sequence.unsqueeze(1) if sequence.dim() == 3 else sequence.movedim(3, 1)  # (B, channels, T + 2, F)
        image = nn.functional.pad(image, (1, 1, 0, 0), mode="reflect").transpose(2, 3)
        modules = block.convs
        y = modules.conv_0.conv(image).permute(0, 3, 2, 1)
        return modules.dropout_0(modules.act_0(modules.norm_0(y))), after

    def _run(self, x: Tensor, lens: Tensor, state: FrontEndState) -> tuple[Tensor, Tensor, FrontEndState]:
        after = []
        begins = state.begins & (lens == 0)
        for block, before in zip(self._blocks, state.before, strict=True):
            x, last = self._convolve(block, x, lens, state.begins, before)
            after.append(last)
            lens = -(-lens // 2)
        return x, lens, FrontEndState(begins, tuple(after))

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> FrontEndState:
        """The state of ``batch`` new streams."""
        before = tuple(torch.zeros(batch, 1, *width, device=device, dtype=dtype) for width in self.widths)
        return FrontEndState(torch.ones(batch, dtype=torch.bool, device=device), before)

    def forward(self, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, F), lens (B,) → (B, N, F', channels), of which lens (B,) are valid; the others are not zeroed."""
        outputs = self.geometry.outputs(x.size(1))
        x = nn.functional.pad(x, (0, 0, 0, max(1 - x.size(1), 0)))  # nothing at all can be convolved too
        y, lens, _ = self._run(x, lens, self.init_state(x.size(0), x.device, x.dtype))
        return y[:, :outputs], lens

    def step(self, x: Tensor, lens: Tensor, final: Tensor, state: FrontEndState) -> tuple[Tensor, Tensor, FrontEndState]:
        """x (B, T_c, F) → (B, ceil(T_c / stride), F', channels), lens (B,), state."""
        return self._run(x, lens, state)


class Projection(nn.Module):
    """TransformerASR's custom_src_module: the front end's output, flattened, to the width of the model."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, F', channels) → (B, N, D)."""
        return self.source(x.flatten(2))


def relative_positions(size: int, dim: int, like: Tensor) -> Tensor:
    """(size, D): RelPosEncXL. It has the same embedding for what lies as far in the future as in the past."""
    frequency = torch.exp(torch.arange(0, dim, 2, device=like.device, dtype=torch.float64) * -(math.log(10000.0) / dim))
    angle = torch.arange(size, device=like.device, dtype=torch.float64).unsqueeze(1) * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(like.dtype)


class SpeechBrainLayer(nn.Module):
    """A ConformerEncoderLayer with RelPosMHAXL and dynamic chunk convolution, its modules and weights in ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def init_context(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> LayerContext:
        """The context before the start of a stream."""
        dim, before = self.layer.mha_layer.embed_dim, self.layer.convolution_module.padding
        return LayerContext(
            AttentionContext.empty(batch, left, dim, device, dtype),
            ConvolutionContext(torch.zeros(batch, before, dim, device=device, dtype=dtype)),
        )

    def forward(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """x (B, chunks, C + R, D) → the same shape, and the context after the last chunk."""
        layer, shape = self.layer, x.shape[1:3]
        x = x + 0.5 * layer.ffn_module1(x.flatten(1, 2)).unflatten(1, shape)
        y, attention = self._attend(layer.norm1(x), context.attention, at)
        x = x + y
        y, convolution = self._convolve(x, context.convolution, at)
        x = x + y
        x = x + 0.5 * layer.ffn_module2(x.flatten(1, 2)).unflatten(1, shape)
        return layer.norm2(x), LayerContext(attention, convolution)

    def step(self, x: Tensor, context: LayerContext, at: ChunkLayout) -> tuple[Tensor, LayerContext]:
        """One chunk x (B, C + R, D) → the same shape, and the context after it."""
        y, after = self(x.unsqueeze(1), context, at)
        return y.squeeze(1), after

    def _attend(self, x: Tensor, context: AttentionContext, at: ChunkLayout) -> tuple[Tensor, AttentionContext]:
        mha = self.layer.mha_layer
        heads, width = mha.num_heads, mha.head_dim
        projected = nn.functional.linear(padded_sequence(x, at), mha.in_proj_weight)
        # SpeechBrain's in_proj_weight has query, key and value of a head next to each other.
        query, key, value = (t.flatten(2) for t in projected.unflatten(2, (heads, 3 * width)).chunk(3, dim=3))
        queries = query_blocks(split_heads(query, heads), at)
        keys = key_blocks(split_heads(context.keys, heads), split_heads(key, heads), at)
        values = key_blocks(split_heads(context.values, heads), split_heads(value, heads), at)
        at_query = at.left + torch.arange(queries.size(2), device=x.device).unsqueeze(1)
        distance = (at_query - torch.arange(keys.size(2), device=x.device)).abs()
        table = mha.linear_pos(relative_positions(keys.size(2), mha.embed_dim, x)).unflatten(1, (heads, width)).transpose(0, 1)
        by_distance = (queries + mha.pos_bias_v.view(heads, 1, width)) @ table.transpose(1, 2)  # (B · blocks, H, queries, distances)
        bias = mha.scale * by_distance.gather(3, distance.expand(*by_distance.shape[:2], -1, -1))
        attended = nn.functional.scaled_dot_product_attention(
            queries + mha.pos_bias_u.view(heads, 1, width),
            keys,
            values,
            attn_mask=bias.masked_fill(~at.mask, -torch.inf),
            dropout_p=mha.dropout_att.p if self.training else 0.0,
            scale=mha.scale,
        )
        return mha.out_proj(joined_heads(attended, x)), context.advance(key, value, at)

    def _convolve(self, x: Tensor, context: ConvolutionContext, at: ChunkLayout) -> tuple[Tensor, ConvolutionContext]:
        module = self.layer.convolution_module
        gated = module.bottleneck(module.layer_norm(x).flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        gated = gated.unflatten(1, x.shape[1:3]) * at.valid.unsqueeze(-1)
        windows, after = convolution_windows(gated, context, at, module.padding, module.padding)
        convolved = nn.functional.conv1d(
            windows.flatten(0, 1).transpose(1, 2), module.conv.weight, module.conv.bias, groups=module.conv.groups
        )
        return module.after_conv(convolved.transpose(1, 2).reshape(x.shape)), after
