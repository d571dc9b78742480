"""The mel-weighted power spectrum of windowed frames, shared by the frontends. Legend: reallm/types.py."""

import torch
from torch import Tensor

from reallm.errors import InputError, at_least
from reallm.frontends.framing import FramedFrontend


class SpectralFrontend(FramedFrontend):
    """A framed frontend with a window, a Fourier transform and a filterbank, none of which is stored with the weights.

    Args:
        sample_rate: of the audio, in Hz.
        mels: number of bands.
        window_ms: length of a frame.
        shift_ms: distance of frames.
        fft: points of the Fourier transform; None = the next power of two from a frame on.

    A subclass calls ``weigh`` in its constructor, and defines ``analyse`` with the help of ``power``. Raises InputError without bands.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, sample_rate: int, mels: int, window_ms: float, shift_ms: float, fft: int | None = None) -> None:
        at_least(1, mels=mels)
        super().__init__(sample_rate, window_ms, shift_ms, output_dim=mels)
        self.fft = 1 << (self.window_samples - 1).bit_length() if fft is None else fft
        self._more_lines = f"a longer window_ms than {window_ms}" if fft is None else f"a larger fft than {fft}"

    def weigh(self, window: Tensor, filterbank: Tensor) -> None:
        """Keep ``window`` (window_samples,) and ``filterbank`` (fft / 2 + 1, mels), both float64.

        Raises InputError for a band so narrow that it holds no spectral line: it would be constant.
        """
        empty = 0 if filterbank.is_meta else int((filterbank.amax(0) == 0).sum())
        if empty:
            raise InputError(
                f"{empty} of {filterbank.size(1)} mel bands hold no spectral line of a {self.fft}-point FFT at {self.sample_rate} Hz: "
                f"use fewer bands, or {self._more_lines}"
            )
        self.register_buffer("filterbank", filterbank.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("window", window.to(torch.get_default_dtype()), persistent=False)

    def power(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → power of their spectral lines (B, T, fft / 2 + 1)."""
        spectrum = torch.fft.rfft(frames * self.window, n=self.fft)
        return spectrum.real.square() + spectrum.imag.square()
