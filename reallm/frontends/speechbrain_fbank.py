"""SpeechBrain's log-mel filterbank features."""

import math
from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.frontends.spectral import SpectralFrontend
from reallm.registry import register


def speechbrain_filterbank(bins: int, mels: int, sample_rate: int) -> Tensor:
    """(bins, mels) float64: triangles in Hz, both sides as wide as the left one (Filterbank of speechbrain.processing.features)."""
    highest = 2595.0 * math.log10(1 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0, highest, mels + 2, dtype=torch.float64) / 2595.0) - 1.0)
    lines = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64).unsqueeze(1)
    return (1 - (lines - edges[1:-1]).abs() / edges.diff()[:-1]).clamp(min=0)


@register("frontend", "speechbrain_fbank")
class SpeechBrainFbankFrontend(SpectralFrontend):
    """Fbank of speechbrain.lobes.features: decibels of the mel-weighted power spectrum of Hamming-windowed frames.

    Frame t ends with sample (t + 1) · shift, as that of every frontend here. SpeechBrain's frame k is centred at sample k · shift and looks
    window / 2 - shift samples beyond its own period: the features are SpeechBrain's of the waveform with so many zeros before it.

    SpeechBrain lifts what lies more than 80 dB below the loudest value of the utterance. A stream does not know that value:
    only ``floor`` is kept, and the two agree on utterances whose features span less than that.

    The normalizer of a checkpoint is the stored mean and deviation: see reallm.encoders.speechbrain_conformer.

    Args:
        sample_rate: of the audio, in Hz.
        mels: number of bands, F.
        window_ms: length of a frame (32 in the streaming recipes).
        shift_ms: distance of frames.
        fft: points of the Fourier transform, at least a frame.
        floor: the least power before the logarithm.

    Raises InputError for an ``fft`` shorter than a frame or too short for the bands.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        mels: int = 80,
        window_ms: float = 32.0,
        shift_ms: float = 10.0,
        fft: int = 512,
        floor: float = 1e-10,
    ) -> None:
        super().__init__(sample_rate, mels, window_ms, shift_ms, fft)
        if fft < self.window_samples:
            raise InputError(f"fft {fft} is shorter than a frame of {self.window_samples} samples: choose a larger one")
        self.floor = floor
        window = torch.hamming_window(self.window_samples, dtype=torch.float64)
        self.weigh(window, speechbrain_filterbank(fft // 2 + 1, mels, sample_rate))

    @classmethod
    def tiny(cls) -> Self:
        """16 bands at 8 kHz."""
        return cls(sample_rate=8000, mels=16)

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → log-mel energies in decibels (B, T, F)."""
        return 10 * (self.power(frames) @ self.filterbank).clamp(min=self.floor).log10()
