"""The mel filterbank: triangles on the HTK mel scale, as in torchaudio.functional.melscale_fbanks (norm=None); and its warping."""

import math

import torch
from torch import Tensor


def mel_filterbank(bins: int, mels: int, sample_rate: int, low_hz: float = 0.0, high_hz: float | None = None) -> Tensor:
    """(bins, mels) float64: weight of each of the ``bins`` = fft / 2 + 1 spectral lines in each band."""
    high_hz = sample_rate / 2 if high_hz is None else high_hz

    def to_mel(hz: float) -> float:
        return 2595.0 * math.log10(1.0 + hz / 700.0)

    edges = 700.0 * (10.0 ** (torch.linspace(to_mel(low_hz), to_mel(high_hz), mels + 2, dtype=torch.float64) / 2595.0) - 1.0)
    lines = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64)
    distance = edges.unsqueeze(0) - lines.unsqueeze(1)
    width = edges.diff()
    return torch.minimum(-distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]).clamp_min(0)


def warped_filterbank(filterbank: Tensor, factor: float, knee: float = 0.6) -> Tensor:
    """(bins, mels) → the same shape: hears at frequency f · ``factor`` what the filterbank given hears at f.

    Vocal tract length perturbation (Jaitly and Hinton 2013, eq. 1): frequencies up to about ``knee`` of the highest one
    are scaled, the others squeezed or stretched to end where they did. The spectrum is interpolated, so that no band
    becomes empty.
    """
    bins = filterbank.size(0)
    share = torch.linspace(0, 1, bins, dtype=torch.float64)
    bend = knee * min(factor, 1.0) / factor
    scaled = torch.where(share <= bend, share * factor, 1 - (1 - bend * factor) / (1 - bend) * (1 - share))
    position = (scaled * (bins - 1)).clamp(0, bins - 1)
    below = position.floor().long().clamp_max(bins - 2)
    above_weight = (position - below).unsqueeze(1)
    interpolation = torch.zeros(bins, bins, dtype=torch.float64)
    interpolation.scatter_(1, below.unsqueeze(1), 1 - above_weight).scatter_(1, below.unsqueeze(1) + 1, above_weight)
    return (interpolation.T @ filterbank.double()).to(filterbank.dtype)
