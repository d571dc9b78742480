"""What attention adds to its scores."""

import torch
from torch import Tensor


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``mask`` (…) bool is true, else -inf: made once for all layers, each of which would make it of a mask of bool."""
    hidden = ~mask
    return hidden.to(dtype).masked_fill_(hidden, -torch.inf)
