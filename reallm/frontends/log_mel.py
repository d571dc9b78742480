"""Log-mel filterbank features."""

from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.frontends.spectral import SpectralFrontend
from reallm.layers.mel import mel_filterbank, warped_filterbank
from reallm.registry import register

WARPS = 21  # vocal tract lengths that training draws from


@register("frontend", "log_mel")
class LogMelFrontend(SpectralFrontend):
    """Logarithm of the mel-weighted power spectrum of Hann-windowed frames, with stored global mean and deviation.

    Args:
        sample_rate: of the audio, in Hz.
        mels: number of bands, F.
        window_ms: length of a frame.
        shift_ms: distance of frames.
        floor: power added before the logarithm, so that digital silence is a finite, quiet value.
        vocal_tract: in training, each utterance's frequencies are divided by a factor drawn from 1 - ``vocal_tract`` to
            1 + ``vocal_tract``, as if another vocal tract had spoken (VTLP, Jaitly and Hinton 2013); no time moves.

    Raises InputError when the window is so short that a band holds no spectral line, and for a ``vocal_tract`` outside
    [0, 0.3].
    """

    warped: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        mels: int = 80,
        window_ms: float = 25.0,
        shift_ms: float = 10.0,
        floor: float = 1e-6,
        vocal_tract: float = 0.0,
    ) -> None:
        super().__init__(sample_rate, mels, window_ms, shift_ms)
        if not 0 <= vocal_tract <= 0.3:
            raise InputError(f"vocal_tract {vocal_tract}: choose a share from 0 to 0.3")
        self.floor = floor
        self.vocal_tract = vocal_tract
        filterbank = mel_filterbank(self.fft // 2 + 1, mels, sample_rate)
        self.weigh(torch.hann_window(self.window_samples, dtype=torch.float64), filterbank)
        if vocal_tract:
            factors = torch.linspace(1 - vocal_tract, 1 + vocal_tract, WARPS).tolist()
            warped = torch.stack([warped_filterbank(filterbank, factor) for factor in factors])
            self.register_buffer("warped", warped.to(torch.get_default_dtype()), persistent=False)

    @classmethod
    def tiny(cls) -> Self:
        """16 bands at 8 kHz."""
        return cls(sample_rate=8000, mels=16)

    def from_stored(self, feats: Tensor, wav_lens: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """See FramedFrontend. Raises InputError in training with a ``vocal_tract``: stored features have that of the speaker."""
        if self.training and self.vocal_tract:
            raise InputError("stored features have one vocal tract: set vocal_tract to 0, or compute the features online")
        return super().from_stored(feats, wav_lens, lens)

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → log-mel energies (B, T, F)."""
        filterbank = self.filterbank
        if self.training and self.vocal_tract:
            filterbank = self.warped[torch.randint(WARPS, (frames.size(0),), device=frames.device)]  # (B, bins, F)
        return torch.log(self.power(frames) @ filterbank + self.floor)
