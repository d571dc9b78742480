"""The Emformer of torchaudio, streaming. Legend: reallm/types.py; C chunk size, R look-ahead, in encoder frames."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from reallm.encoders._chunked import ChunkedEncoder
from reallm.errors import InputError, at_least
from reallm.layers.chunk_layout import ChunkLayout
from reallm.layers.chunked_attention import AttentionContext, joined_heads, key_blocks, padded_sequence, query_blocks, split_heads
from reallm.layers.dropout import Dropout
from reallm.layers.subsampling import StridedWindow
from reallm.protocols import ChunkSpec
from reallm.registry import register


class EmformerLayer(nn.Module):
    """A layer of torchaudio.models.Emformer, its modules and weights in ``layer``, over chunks of rows that may be of any age."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def init_context(self, batch: int, left: int, device: torch.device | str, dtype: torch.dtype) -> AttentionContext:
        """The context before the start of a stream."""
        return AttentionContext.empty(batch, left, self.layer.input_dim, device, dtype)

    def forward(self, x: Tensor, context: AttentionContext, at: ChunkLayout) -> tuple[Tensor, AttentionContext]:
        """x (B, chunks, C + R, D) → the same shape, and the keys and values of the last frames."""
        attention = self.layer.attention
        heads = attention.num_heads
        sequence = padded_sequence(self.layer.layer_norm_input(x), at)
        key, value = attention.emb_to_key_value(sequence).chunk(2, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(
            query_blocks(split_heads(attention.emb_to_query(sequence), heads), at),
            key_blocks(split_heads(context.keys, heads), split_heads(key, heads), at),
            key_blocks(split_heads(context.values, heads), split_heads(value, heads), at),
            attn_mask=at.mask,
        )
        x = x + self.layer.dropout(attention.out_proj(joined_heads(attended, x)))
        return self.layer.layer_norm_output(x + self.layer.pos_ff(x)), context.advance(key, value, at)

    def step(self, x: Tensor, context: AttentionContext, at: ChunkLayout) -> tuple[Tensor, AttentionContext]:
        """One chunk x (B, C + R, D) → the same shape, and the context after it."""
        y, after = self(x.unsqueeze(1), context, at)
        return y.squeeze(1), after


@register("encoder", "emformer")
class EmformerEncoder(ChunkedEncoder):
    """Emformer (Shi et al., 2021) without memory bank: the layers and weights of torchaudio.models.Emformer, over stacked feature frames.

    The right context is a true one: each chunk carries a copy of the R frames after it through all layers, so that the look-ahead
    does not grow with depth. ``layers[n].layer`` takes the weights of a torchaudio model's ``emformer_layers[n]``. There is no
    positional encoding: order comes from what ``context`` stacks and from who attends to whom.

    torchaudio's own ``infer`` takes the age of row 0 for all rows, and wants C + R frames a time; ``step`` here has masks
    for each row, and takes C. So that a chunk is complete as soon as its right context has come, the first one has C - R frames.

    Args:
        input_dim: F.
        dim: D.
        layers: number of Emformer layers.
        heads: attention heads; ``dim`` must be a multiple of them.
        hidden: width of the feed-forward modules.
        activation: of the feed-forward modules.
        stride: feature frames per encoder frame.
        context: feature frames before its own that an encoder frame sees.
        chunk_size: C of streaming, torchaudio's segment_length.
        left: encoder frames before the chunk that are attended to, torchaudio's left_context_length.
        right: R, encoder frames after the chunk that are attended to, torchaudio's right_context_length.
        dropout: probability; that of the attention weights is left out, it would rule out the fused kernel.

    Raises InputError for a size below 1, an unknown activation, and heads that do not divide ``dim``.
    """

    def __init__(
        self,
        input_dim: int,
        dim: int = 144,
        layers: int = 4,
        heads: int = 4,
        hidden: int = 576,
        activation: Literal["relu", "gelu", "silu"] = "gelu",
        stride: int = 4,
        context: int = 4,
        chunk_size: int = 8,
        left: int = 32,
        right: int = 4,
        dropout: float = 0.1,
    ) -> None:
        from torchaudio.models import Emformer  # of the extra 'train': listing components must not need it

        at_least(1, input_dim=input_dim, dim=dim, layers=layers, heads=heads, hidden=hidden, stride=stride)
        if dim % heads:
            raise InputError(f"{heads} heads of a model of width {dim}: choose a width that is a multiple of them")
        if activation not in ("relu", "gelu", "silu"):
            raise InputError(f"activation '{activation}': one of relu, gelu, silu")
        emformer = Emformer(
            dim, heads, hidden, layers, chunk_size, dropout, activation, left_context_length=left, right_context_length=right
        )
        super().__init__(
            input_dim,
            dim,
            ChunkSpec(chunk_size, left, right),
            StridedWindow(input_dim, dim, stride, context),
            nn.Sequential(nn.LayerNorm(dim), Dropout(dropout)),
            (EmformerLayer(layer) for layer in emformer.emformer_layers),
        )

    @classmethod
    def tiny(cls) -> Self:
        """Two layers, chunks of 4 frames with 5 to the left and 2 to the right."""
        return cls(input_dim=8, dim=16, layers=2, heads=2, hidden=24, chunk_size=4, left=5, right=2, dropout=0.0)
