"""SpecAugment without time warping (Park et al. 2019, arXiv 1904.08779): no frame moves, so alignments stay true."""

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Sets random stretches of frames and of features to 0, the mean of normalized features.

    Args:
        time_masks, freq_masks: how many a row.
        time_width, freq_width: the widest, in frames and features; each is uniform from 0 to it.
    """

    def __init__(self, time_masks: int = 2, time_width: int = 10, freq_masks: int = 2, freq_width: int = 8) -> None:
        super().__init__()
        self.time_masks, self.time_width = time_masks, time_width
        self.freq_masks, self.freq_width = freq_masks, freq_width

    def forward(self, feats: Tensor, lens: Tensor) -> Tensor:
        """feats (B, T, F), lens (B,) → the same shape; draws from torch's global generator."""
        time = _spans(lens, self.time_masks, self.time_width, feats.size(1))
        freq = _spans(torch.full_like(lens, feats.size(2)), self.freq_masks, self.freq_width, feats.size(2))
        return feats.masked_fill(time.unsqueeze(2) | freq.unsqueeze(1), 0)


def _spans(sizes: Tensor, count: int, width: int, length: int) -> Tensor:
    """(B, length) bool: ``count`` random spans of at most ``width`` below each row's size (B,)."""
    shape = (sizes.size(0), count, 1)
    span = torch.randint(0, width + 1, shape, device=sizes.device)
    start = (torch.rand(shape, device=sizes.device) * (sizes.view(-1, 1, 1) - span + 1).clamp(min=1)).long()
    at = torch.arange(length, device=sizes.device)
    return ((at >= start) & (at < start + span)).any(1)
