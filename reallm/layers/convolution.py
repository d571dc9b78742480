"""The Conformer's convolution module, in chunks. Legend: reallm/types.py."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.layers.chunk_layout import ChunkLayout
from reallm.layers.dropout import Dropout
from reallm.streaming.state import StreamingState


@dataclass
class ConvolutionContext(StreamingState):
    """The gated frames left of a chunk."""

    frames: Tensor  # (B, P, D)


def convolution_windows(
    x: Tensor, context: ConvolutionContext, at: ChunkLayout, before: int, after: int
) -> tuple[Tensor, ConvolutionContext]:
    """What a convolution over ``before`` frames, its own and ``after`` frames of the same chunk runs over.

    Args:
        x: (B, chunks, size + right, D), zeros outside the stream.
        context: of ``before`` frames.
        at: the layout.
        before, after: frames on either side.

    Returns:
        (B, 1 or chunks, frames and context, D), and the context after the last chunk, copies aside.
    """
    sequence = torch.cat([context.frames, x[:, :, : at.size].flatten(1, 2)], dim=1)  # (B, before + chunks · size, D)
    left = ConvolutionContext(sequence[:, sequence.size(1) - before :])
    if after == 0 and at.right == 0:  # chunks do not matter: one row of the image
        return sequence.unsqueeze(1), left
    windows = sequence.unfold(1, before + at.size, at.size).transpose(2, 3)
    ahead = nn.functional.pad(x[:, :, at.size :], (0, 0, 0, after))
    return torch.cat([windows, ahead], dim=2), left


class ConvolutionModule(nn.Module):
    """LayerNorm, gated linear unit, depthwise convolution, LayerNorm, SiLU, linear; the caller adds the residual.

    After Gulati et al., 2020, section 2.2, with LayerNorm where a BatchNorm would mix frames that a stream has not
    reached yet. ``reach`` says what a frame sees:

    - ``causal``: itself and ``kernel`` - 1 frames before it;
    - ``chunk``: ``kernel`` / 2 frames on either side, but none after its chunk and the look-ahead copies (dynamic
      chunk convolution, Li et al., 2023).

    Raises InputError for an even kernel with ``chunk``, or an unknown reach.
    """

    def __init__(self, dim: int, kernel: int, reach: Literal["causal", "chunk"] = "causal", dropout: float = 0.0) -> None:
        super().__init__()
        if reach not in ("causal", "chunk"):
            raise InputError(f"convolution '{reach}': one of causal, chunk")
        if reach == "chunk" and kernel % 2 == 0:
            raise InputError(f"kernel {kernel} of a chunk convolution: choose an odd one")
        self.after = kernel // 2 if reach == "chunk" else 0
        self.before = kernel - 1 - self.after
        self.dim = dim
        self.in_norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv2d(dim, dim, (1, kernel), groups=dim)
        self.out_norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def init_context(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> ConvolutionContext:
        """Zeros, as before the start of a stream."""
        return ConvolutionContext(torch.zeros(batch, self.before, self.dim, device=device, dtype=dtype))

    def forward(self, x: Tensor, context: ConvolutionContext, at: ChunkLayout) -> tuple[Tensor, ConvolutionContext]:
        """x (B, chunks, size + right, D) → the same shape, and the context after the last chunk, copies aside."""
        batch, chunks, span, dim = x.shape
        gated = nn.functional.glu(self.in_proj(self.in_norm(x))) * at.valid.unsqueeze(-1)
        image, after = convolution_windows(gated, context, at, self.before, self.after)
        # The channels-last layout of a (D, chunks, time) image: the fastest depthwise convolution on a CPU.
        convolved = self.depthwise(image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
        y = convolved.permute(0, 2, 3, 1).reshape(batch, chunks, span, dim)
        return self._project(y), after

    def step(self, x: Tensor, context: ConvolutionContext, at: ChunkLayout) -> tuple[Tensor, ConvolutionContext]:
        """One chunk x (B, size + right, D) → the same shape, and the context after it."""
        valid = at.cached(("valid", x.dtype), lambda: at.valid.squeeze(1).unsqueeze(2).to(x.dtype))
        gated = nn.functional.glu(self.in_proj(self.in_norm(x))) * valid
        sequence = torch.cat([context.frames, gated], dim=1)
        after = ConvolutionContext(sequence[:, at.size : at.size + self.before])
        if self.after:
            sequence = nn.functional.pad(sequence, (0, 0, 0, self.after))
        image = sequence.transpose(1, 2).unsqueeze(2)  # the same layout
        return self._project(self.depthwise(image).squeeze(2).transpose(1, 2)), after

    def _project(self, convolved: Tensor) -> Tensor:
        return self.dropout(self.out_proj(nn.functional.silu(self.out_norm(convolved))))
