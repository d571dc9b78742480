"""Mel-frequency cepstral coefficients."""

import math
from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.frontends.log_mel import LogMelFrontend
from reallm.registry import register


def cosine_transform(inputs: int, outputs: int) -> Tensor:
    """(inputs, outputs) float64: the first columns of the orthonormal DCT-II."""
    angles = math.pi / inputs * (torch.arange(inputs, dtype=torch.float64).unsqueeze(1) + 0.5) * torch.arange(outputs, dtype=torch.float64)
    matrix = torch.cos(angles) * math.sqrt(2.0 / inputs)
    matrix[:, 0] /= math.sqrt(2.0)
    return matrix


@register("frontend", "mfcc")
class MFCCFrontend(LogMelFrontend):
    """The first coefficients of the cosine transform of the log-mel energies (Davis and Mermelstein, 1980).

    Args:
        sample_rate: of the audio, in Hz.
        coefficients: how many are kept, F; the first is the energy's.
        mels: number of bands that they are made of.
        window_ms: length of a frame.
        shift_ms: distance of frames.
        floor: power added before the logarithm.
        vocal_tract: see log_mel.

    Raises InputError when there are more coefficients than bands.
    """

    transform: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        coefficients: int = 40,
        mels: int = 40,
        window_ms: float = 25.0,
        shift_ms: float = 10.0,
        floor: float = 1e-6,
        vocal_tract: float = 0.0,
    ) -> None:
        super().__init__(sample_rate, mels, window_ms, shift_ms, floor, vocal_tract)
        if not 1 <= coefficients <= mels:
            raise InputError(f"coefficients {coefficients} of {mels} mel bands: keep 1 to {mels}")
        self.output_dim = coefficients
        self.register_buffer("mean", torch.zeros(coefficients))
        self.register_buffer("std", torch.ones(coefficients))
        self.register_buffer("transform", cosine_transform(mels, coefficients).to(torch.get_default_dtype()), persistent=False)

    @classmethod
    def tiny(cls) -> Self:
        """8 coefficients of 16 bands at 8 kHz."""
        return cls(sample_rate=8000, coefficients=8, mels=16)

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → cepstral coefficients (B, T, F)."""
        return super().analyse(frames) @ self.transform
