"""Kaldi's log-mel filterbank features."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.frontends.spectral import SpectralFrontend
from reallm.registry import register

PREEMPHASIS = 0.97


def kaldi_filterbank(fft: int, mels: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """(fft / 2 + 1, mels) float32: triangles that are linear in mel (MelBanks of Kaldi), not in Hz; the last line is in none.

    Computed in float32 and in the order of torchaudio.compliance.kaldi.get_mel_banks: rounding moves a triangle's foot by up to 1e-5 of its
    width, which is heard where a loud line lies just inside of it, and Kaldi, whose numbers are float32 too, rounds there likewise.

    Raises InputError for band edges out of range.
    """
    nyquist = sample_rate / 2
    high = high_hz if high_hz > 0 else nyquist + high_hz
    if not 0 <= low_hz < high <= nyquist:
        raise InputError(f"low_hz {low_hz}, high_hz {high_hz} at {sample_rate} Hz: needs 0 <= low_hz < high_hz <= {nyquist:g}")
    low_mel, high_mel = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (low_hz, high))
    distance = (high_mel - low_mel) / (mels + 1)
    bands = torch.arange(mels, dtype=torch.float32)
    left, centre, right = (low_mel + (bands + edge) * distance for edge in (0.0, 1.0, 2.0))
    lines = 1127.0 * (1.0 + sample_rate / fft * torch.arange(fft // 2, dtype=torch.float32) / 700.0).log().unsqueeze(1)
    weights = torch.minimum((lines - left) / (centre - left), (right - lines) / (right - centre)).clamp(min=0)
    return nn.functional.pad(weights, (0, 0, 0, 1))


def povey_window(samples: int, dtype: torch.dtype) -> Tensor:
    """(samples,) a Hann window to the power of 0.85, computed in ``dtype``, float32 at least."""
    exact = torch.promote_types(dtype, torch.float32)
    return torch.hann_window(samples, periodic=False, dtype=exact).pow(0.85).to(dtype)


@register("frontend", "kaldi_fbank")
class KaldiFbankFrontend(SpectralFrontend):
    """compute-fbank-feats of Kaldi, as torchaudio.compliance.kaldi.fbank has it: each frame loses its mean, is preemphasized by 0.97 and
    weighted by the Povey window; then the logarithm of the mel-weighted power spectrum. No dither, no energy.

    On real speech it equals torchaudio's of the same type to 1e-9 in float64 and to 1e-5 in float32. What float32 itself costs is more,
    here as there, where a band holds next to nothing beside a loud one: up to 2e-4 in four files of LibriSpeech, 0.06 in 204 of
    speechocean762.

    Frame t ends with sample (t + 1) · shift, as that of every frontend here, so that it waits for nothing. Kaldi's frame k ends

    - with snip_edges=True at sample k · shift + window: with 25 and 10 ms that is half a shift off our grid. The features are
      exactly Kaldi's of the waveform with window - shift zeros before it; or, with ``-window mod shift`` zeros before it, frame
      k + ceil(window / shift) - 1 here is Kaldi's frame k of the waveform itself;
    - with snip_edges=False at sample k · shift + (shift + window) / 2, which looks (window - shift) / 2 samples beyond its own period, and
      Kaldi mirrors the waveform at its ends: no stream can have that.

    Args:
        sample_rate: of the audio, in Hz.
        mels: number of bands, F.
        window_ms: length of a frame.
        shift_ms: distance of frames.
        low_hz: lower end of the lowest band.
        high_hz: upper end of the highest band; 0 or less: counted from half the sample rate.
        scale: samples are multiplied by this first. Kaldi reads 16-bit integers, hence 32768; models that were trained on samples in
            [-1, 1], such as lhotse's and icefall's, need 1.

    Raises InputError for band edges out of range, and for a band so narrow that it holds no spectral line.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        mels: int = 80,
        window_ms: float = 25.0,
        shift_ms: float = 10.0,
        low_hz: float = 20.0,
        high_hz: float = 0.0,
        scale: float = 32768.0,
    ) -> None:
        super().__init__(sample_rate, mels, window_ms, shift_ms)
        self.scale = scale
        window = povey_window(self.window_samples, torch.get_default_dtype())
        self.weigh(window, kaldi_filterbank(self.fft, mels, sample_rate, low_hz, high_hz))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The window is computed in the type that it is used in: one that was rounded before lets a loud band by into a quiet one."""
        before = self.window.dtype
        super()._apply(fn, recurse)
        if self.window.dtype != before:
            self.window = povey_window(self.window_samples, self.window.dtype).to(self.window.device)
        return self

    @classmethod
    def tiny(cls) -> Self:
        """16 bands at 8 kHz."""
        return cls(sample_rate=8000, mels=16)

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → log-mel energies (B, T, F)."""
        frames = frames * self.scale
        frames = frames - frames.mean(-1, keepdim=True)
        frames = frames - PREEMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        return (self.power(frames) @ self.filterbank).clamp(min=torch.finfo(torch.float32).eps).log()
