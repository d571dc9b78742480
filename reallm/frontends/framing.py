"""Causal framing, shared by the frontends. Legend: reallm/types.py.

Frame t is the ``window`` samples that end with sample (t + 1) · shift, so a frame never waits for audio after its own
period; before the start of the stream lie zeros::

    samples   |0 ....... |shift ....|2·shift ..|
    frame 0   --window---|
    frame 1         -----window-----|
"""

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reallm.errors import InputError, at_least
from reallm.registry import spec_of
from reallm.streaming.context import length_mask, mask_padding, push_context
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState


@dataclass
class FrontendState(StreamingState):
    """The samples that the next frame overlaps with."""

    context: Tensor  # (B, window - shift)


class FramedFrontend(nn.Module):
    """A frontend whose every frame is a function of its own window of samples; normalized by a stored mean and deviation.

    Args:
        sample_rate: of the audio, in Hz.
        window_ms: length of a frame.
        shift_ms: distance of frames.
        output_dim: F.

    Subclasses define ``analyse``. Raises InputError for a size below 1, and a shift that is no
    whole number of samples or exceeds the window.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sample_rate: int, window_ms: float, shift_ms: float, output_dim: int) -> None:
        at_least(1, sample_rate=sample_rate, output_dim=output_dim)
        super().__init__()
        shift, window = sample_rate * shift_ms / 1000, round(sample_rate * window_ms / 1000)
        if shift != int(shift) or shift < 1:
            raise InputError(f"shift_ms {shift_ms} is {shift} samples at {sample_rate} Hz: choose one that is a whole number of samples")
        if window < shift:
            raise InputError(f"window_ms {window_ms} is shorter than shift_ms {shift_ms}: make it at least as long")
        self.sample_rate = sample_rate
        self.frame_shift = int(shift)
        self.window_samples = window
        self.output_dim = output_dim
        self.geometry = Geometry(stride=self.frame_shift)
        self.register_buffer("mean", torch.zeros(output_dim))
        self.register_buffer("std", torch.ones(output_dim))

    def analyse(self, frames: Tensor) -> Tensor:
        """frames (B, T, window_samples) → features before normalization (B, T, F)."""
        raise NotImplementedError

    def _features(self, samples: Tensor) -> Tensor:
        with torch.autocast(samples.device.type, enabled=False):  # log of a power spectrum needs its range
            return self.analyse(samples.unfold(1, self.window_samples, self.frame_shift))

    @property
    def tail(self) -> int:
        """Frames after the end of the audio that still overlap with it."""
        return -(-(self.window_samples - self.frame_shift) // self.frame_shift)

    @property
    def fingerprint(self) -> str:
        """Equal for frontends that give equal features before normalization."""
        spec = spec_of(self)
        left_out = {name for name, argument in inspect.signature(type(self)).parameters.items() if argument.default is None}
        given = {name: value for name, value in spec.kwargs.items() if value is not None or name not in left_out}
        kwargs = json.dumps(given, sort_keys=True, default=str)
        return f"{spec.name}-{hashlib.sha256(kwargs.encode()).hexdigest()[:16]}"

    @torch.no_grad()
    def store(self, wav: Tensor) -> Tensor:
        """wav (S,) → the features of it before normalization and of the silence after it, as far as it is heard there (T + tail, F)."""
        if self.training:
            raise InputError("features that are stored are the same in every epoch: put the frontend into eval mode")
        frames = -(-wav.size(0) // self.frame_shift) + self.tail
        samples = nn.functional.pad(wav.unsqueeze(0), (0, frames * self.frame_shift - wav.size(0)))
        return self._unnormalized(samples, torch.tensor([samples.size(1)]))[0][0]

    def from_stored(self, feats: Tensor, wav_lens: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives of audio with zeros after it.

        Args:
            feats: (B, T, F) rows of :meth:`store`.
            wav_lens: (B,) samples of the audio.
            lens: (B,) samples of it and the zeros.
        """
        frames = -(-lens // self.frame_shift)
        return self._normalize(self._restored(feats, wav_lens, int(frames.max())), frames), frames

    def _restored(self, feats: Tensor, wav_lens: Tensor, size: int) -> Tensor:
        """Of rows of ``store`` and the silence after them, before normalization (B, size, F)."""
        known = -(-wav_lens // self.frame_shift) + self.tail
        silence = self._features(torch.zeros(1, self.window_samples, device=feats.device, dtype=feats.dtype))
        heard = nn.functional.pad(feats, (0, 0, 0, max(size - feats.size(1), 0)))[:, :size]
        return torch.where(length_mask(known, size).unsqueeze(2), heard, silence)

    def _unnormalized(self, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.geometry.outputs(wav.size(1))
        missing = max(frames, 1) * self.frame_shift - wav.size(1)  # one frame at least: nothing at all can be framed too
        samples = nn.functional.pad(mask_padding(wav, lens), (self.window_samples - self.frame_shift, missing))
        return self._features(samples)[:, :frames], -(-lens // self.frame_shift)

    def _normalize(self, feats: Tensor, lens: Tensor) -> Tensor:
        return mask_padding((feats - self.mean) / self.std, lens)

    def forward(self, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """wav (B, S), lens (B,) samples → feats (B, T, F), lens (B,) frames."""
        feats, frames = self._unnormalized(wav, lens)
        return self._normalize(feats, frames), frames

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> FrontendState:
        """The state of ``batch`` new streams."""
        return FrontendState(torch.zeros(batch, self.window_samples - self.frame_shift, device=device, dtype=dtype))

    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: FrontendState) -> tuple[Tensor, Tensor, FrontendState]:
        """wav (B, S_c), S_c a multiple of ``frame_shift`` → feats (B, S_c / frame_shift, F), lens (B,) frames, state."""
        feats, frames, context = self._chunk(wav, lens, state.context)
        return self._normalize(feats, frames), frames, FrontendState(context)

    def _chunk(self, wav: Tensor, lens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``step`` before normalization: feats (B, T_c, F), lens (B,) frames, the context of the next one."""
        samples, context = push_context(context, mask_padding(wav, lens), lens)
        return self._features(samples), -(-lens // self.frame_shift), context

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Store the mean and standard deviation over ``batches`` of wav (B, S), lens (B,); returns the number of frames.

        They are those of eval mode, whatever mode it is in. Raises InputError when there are fewer than two frames.
        """
        training = self.training
        try:
            return self.eval()._fit(batches)
        finally:
            self.train(training)

    def _fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
        count, total, squares = 0, torch.zeros(self.output_dim).double(), torch.zeros(self.output_dim).double()
        for wav, lens in batches:
            feats, frames = self._unnormalized(wav.to(self.mean), lens.to(self.mean.device))
            valid = feats[length_mask(frames, feats.size(1))].double().cpu()
            count += valid.size(0)
            total += valid.sum(0)
            squares += valid.square().sum(0)
        if count < 2:
            raise InputError(f"feature statistics over {count} frames: give some audio")
        mean = total / count
        self.set_statistics(mean, (squares / count - mean.square()).clamp_min(0).sqrt())
        return count

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean (F,) and the standard deviation (F,), which is floored at 1e-3."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-3))
