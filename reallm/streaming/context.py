"""The left context that a streaming operation carries from chunk to chunk."""

import torch
from torch import Tensor


def length_mask(lens: Tensor, size: int) -> Tensor:
    """(B, size) bool: true where the position is below the row's length."""
    return torch.arange(size, device=lens.device) < lens.unsqueeze(1)


def mask_padding(x: Tensor, lens: Tensor) -> Tensor:
    """x (B, T, …) with zeros from each row's length on."""
    beyond = torch.arange(x.size(1), device=x.device) >= lens.unsqueeze(1)
    return x.masked_fill(beyond.view(*beyond.shape, *[1] * (x.dim() - 2)) if x.dim() > 2 else beyond, 0)


def push_context(context: Tensor, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Put the context before a chunk, and find the context of the next one.

    Args:
        context: (B, P, …), the last P items before this chunk (zeros before the start of a stream).
        x: (B, C, …), of which row b has ``lens[b]`` valid items; a row with none keeps its context.
        lens: (B,) int64.

    Returns:
        window (B, P + C, …), and the context (B, P, …) after the valid items.
    """
    size = context.size(1)
    if size == 0:
        return x, context
    window = torch.cat([context, x], dim=1)
    index = lens.unsqueeze(1) + torch.arange(size, device=lens.device)
    if x.dim() > 2:
        index = index.view(*index.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return window, window.gather(1, index)
