"""When a token is due (Seide et al. 2024, arXiv 2406.09569)."""

from torch import Tensor

from reallm.types import Alignment


def due_embeddings(alignment: Alignment, period_samples: int, delay: int) -> Tensor:
    """(U,) int64, the speech embedding (from 0) that each token answers: max(1, ceil(end / period)) - 1 + delay.

    Integer arithmetic: an end on an exact multiple of the period is due at that multiple. Ends that fall back are held
    at the latest one so far, so that tokens come in order.
    """
    due = (alignment.end_samples + (period_samples - 1)).div(period_samples, rounding_mode="floor").clamp(min=1) - 1 + delay
    return due.cummax(0).values if due.numel() else due
