"""SpeechBrain's log-mel filterbank features."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.frontends.framing import FrontendState
from reallm.frontends.spectral import SpectralFrontend
from reallm.registry import register


def speechbrain_filterbank(bins: int, mels: int, sample_rate: int) -> Tensor:
    """(bins, mels) float64: triangles in Hz, both sides as wide as the left one (Filterbank of speechbrain.processing.features)."""
    highest = 2595.0 * math.log10(1 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0, highest, mels + 2, dtype=torch.float64) / 2595.0) - 1.0)
    lines = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64).unsqueeze(1)
    return (1 - (lines - edges[1:-1]).abs() / edges.diff()[:-1]).clamp(min=0)


def running_max(x: Tensor) -> Tensor:
    """x (B, T) → the greatest value up to each place (B, T). torch.cummax, which cannot be exported to ONNX, in log2(T) shifts."""
    reach = 1
    while reach < x.size(1):
        x = torch.cat([x[:, :reach], torch.maximum(x[:, reach:], x[:, :-reach])], dim=1)
        reach *= 2
    return x


@dataclass
class ClippedState(FrontendState):
    """The state of a stream whose features are clipped."""

    loudest: Tensor  # (B,) dB, the greatest value of all frames so far


@register("frontend", "speechbrain_fbank")
class SpeechBrainFbankFrontend(SpectralFrontend):
    """Fbank of speechbrain.lobes.features: decibels of the mel-weighted power spectrum of Hamming-windowed frames.

    Frame t ends with sample (t + 1) · shift, as that of every frontend here. SpeechBrain's frame k is centred at sample k · shift and looks
    window / 2 - shift samples beyond its own period: the features are SpeechBrain's of the waveform with so many zeros before it.

    SpeechBrain lifts what lies more than ``top_db`` = 80 dB below the loudest value of the utterance, which no stream knows before it has
    ended. Here it is lifted to ``top_db`` below the loudest value *so far*: from the utterance's loudest frame on that is SpeechBrain's,
    before it the quiet values stay quieter. Without ``top_db`` nothing is lifted, and the two agree where features span less than that.
    (When SpeechBrain streams, by StreamingFeatureWrapper, it knows the loudest value of a chunk and what that overlaps with alone.)
    Values more than 0.01 dB from SpeechBrain's, and the largest difference, in the four utterances of LibriSpeech that the tests have:

    =================  ===============  =============
    utterance          top_db = 80      without
    =================  ===============  =============
    1089-134686-0000   0.21 %, 20.3 dB  1.49 %, 20.3 dB
    1089-134686-0001   0.07 %, 5.3 dB   0.28 %, 7.4 dB
    1089-134691-0000   1.88 %, 16.2 dB  2.40 %, 16.2 dB
    1089-134691-0001   0.01 %, 3.0 dB   0.01 %, 3.0 dB
    =================  ===============  =============

    The normalizer of a checkpoint is the stored mean and deviation: see reallm.encoders.speechbrain_conformer.

    Args:
        sample_rate: of the audio, in Hz.
        mels: number of bands, F.
        window_ms: length of a frame (32 in the streaming recipes).
        shift_ms: distance of frames.
        fft: points of the Fourier transform, at least a frame.
        floor: the least power before the logarithm.
        top_db: dB below the loudest value so far, at which features are clipped; None = they are not. SpeechBrain's recipes have 80.

    Raises InputError for an ``fft`` shorter than a frame or too short for the bands, and for a ``top_db`` that is not above 0.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        mels: int = 80,
        window_ms: float = 32.0,
        shift_ms: float = 10.0,
        fft: int = 512,
        floor: float = 1e-10,
        top_db: float | None = None,
    ) -> None:
        super().__init__(sample_rate, mels, window_ms, shift_ms, fft)
        if fft < self.window_samples:
            raise InputError(f"fft {fft} is shorter than a frame of {self.window_samples} samples: choose a larger one")
        if top_db is not None and not top_db > 0:
            raise InputError(f"top_db {top_db}: choose one above 0, or None to clip nothing")
        self.floor, self.top_db = floor, top_db
        window = torch.hamming_window(self.window_samples, dtype=torch.float64)
        self.weigh(window, speechbrain_filterbank(fft // 2 + 1, mels, sample_rate))

    @classmethod
    def tiny(cls) -> Self:
        """16 bands at 8 kHz, clipped so high that noise is."""
        return cls(sample_rate=8000, mels=16, top_db=10.0)

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → log-mel energies in decibels (B, T, F)."""
        return 10 * (self.power(frames) @ self.filterbank).clamp(min=self.floor).log10()

    def _silence(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        return 10 * torch.full((batch,), self.floor, device=device, dtype=dtype).log10()

    def _clip(self, feats: Tensor, top_db: float, loudest: Tensor) -> tuple[Tensor, Tensor]:
        """feats (B, T, F) after frames whose greatest value was ``loudest`` (B,) → clipped; the greatest value before each (B, 1 + T)."""
        so_far = running_max(torch.cat([loudest.unsqueeze(1), feats.amax(2)], dim=1))
        return torch.maximum(feats, (so_far[:, 1:] - top_db).unsqueeze(2)), so_far

    def _clip_all(self, feats: Tensor) -> Tensor:
        """Those of whole streams; what was clipped already stays as it is."""
        if self.top_db is None:
            return feats
        return self._clip(feats, self.top_db, self._silence(feats.size(0), feats.device, feats.dtype))[0]

    def _unnormalized(self, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        feats, frames = super()._unnormalized(wav, lens)
        return self._clip_all(feats), frames

    def _restored(self, feats: Tensor, wav_lens: Tensor, size: int) -> Tensor:
        return self._clip_all(super()._restored(feats, wav_lens, size))  # the silence after it has not been clipped

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> FrontendState:
        """The state of ``batch`` new streams."""
        state = super().init_state(batch, device, dtype)
        return state if self.top_db is None else ClippedState(state.context, self._silence(batch, device, dtype))

    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: FrontendState) -> tuple[Tensor, Tensor, FrontendState]:
        """wav (B, S_c), S_c a multiple of ``frame_shift`` → feats (B, S_c / frame_shift, F), lens (B,) frames, state."""
        if self.top_db is None:
            return super().step(wav, lens, final, state)
        assert isinstance(state, ClippedState)
        feats, frames, context = self._chunk(wav, lens, state.context)
        feats, so_far = self._clip(feats, self.top_db, state.loudest)
        loudest = so_far.gather(1, frames.unsqueeze(1)).squeeze(1)  # what lies after a row's frames is not heard yet
        return self._normalize(feats, frames), frames, ClippedState(context, loudest)
