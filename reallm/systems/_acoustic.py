"""What every system shares: a frontend and a streaming encoder over one audio clock."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reallm.errors import InputError, nearest
from reallm.layers.full_precision import audio_dtype, keeping_float32, parameter_dtype
from reallm.layers.spec_augment import SpecAugment
from reallm.protocols import Adapter, ChunkSpec, Decoder, Encoder, Frontend, Tokenizer
from reallm.streaming.context import mask_padding
from reallm.streaming.state import StreamingState
from reallm.types import Batch

Samples = TypeVar("Samples", int, Tensor)


@dataclass
class AcousticState(StreamingState):
    """Streaming states of the frontend and the encoder."""

    frontend: StreamingState
    encoder: StreamingState


class AcousticModel(nn.Module):
    """Audio to encoder frames, in parallel for training and in chunks for streaming.

    A model in bfloat16 or float16 hears in float32: ``to`` leaves its frontend there, audio and the frontend's state are float32 too, and
    features become the encoder's where they enter it.

    Args:
        frontend, encoder, tokenizer: the components.
        period_samples: samples per frame of what the system emits (a token period, or an encoder frame).
        flush_periods: periods of silence that ``finish()`` adds at the end of a stream, and training to its audio.
        training_chunks: one is drawn for each training batch; None = full context. Default: the encoder's own chunk.
        spec_augment: arguments of layers.SpecAugment, in training.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        tokenizer: Tokenizer,
        period_samples: int,
        flush_periods: int,
        training_chunks: Sequence[ChunkSpec | None] | None,
        spec_augment: Mapping[str, int] | None,
    ) -> None:
        super().__init__()
        if frontend.output_dim != encoder.input_dim:
            raise InputError(f"the encoder's input_dim {encoder.input_dim} must be the frontend's {frontend.output_dim}")
        self.frontend, self.encoder, self.tokenizer = frontend, encoder, tokenizer
        self.sample_rate = frontend.sample_rate
        self.frame_samples = frontend.frame_shift * encoder.geometry.stride  # of one encoder frame
        self.period_samples, self.flush_periods = period_samples, flush_periods
        self.training_chunks = list(training_chunks) if training_chunks else [encoder.chunk]
        self.spec_augment = _spec_augment(spec_augment) if spec_augment else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keeping_float32(fn, self.frontend), recurse)

    @property
    def chunk_samples(self) -> int:
        """Samples of one streaming chunk."""
        return self.encoder.chunk.size * self.frame_samples

    def flush_samples(self, samples: int) -> int:
        """Zeros to the end of the period that the audio ends in, and ``flush_periods`` more."""
        return self._flush(samples)

    def _flush(self, samples: Samples) -> Samples:
        return -samples % self.period_samples + self.flush_periods * self.period_samples

    def with_flush(self, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """wav (B, S), lens (B,) lengthened with zeros by what ``finish()`` pushes."""
        flushed = lens + self._flush(lens)
        missing = int(flushed.max()) - wav.size(1)
        return F.pad(mask_padding(wav, lens), (0, max(missing, 0))), flushed

    def draw_chunk(self) -> ChunkSpec | None:
        """One of the training chunks, from torch's global generator."""
        return self.training_chunks[int(torch.randint(len(self.training_chunks), ()))]

    def encode(self, wav: Tensor, lens: Tensor, chunk: ChunkSpec | None) -> tuple[Tensor, Tensor]:
        """wav (B, S) → enc (B, N, D), lens (B,), in parallel."""
        return self._encode_features(*self.frontend.forward(wav, lens), chunk)

    def hear(self, batch: Batch, chunk: ChunkSpec | None) -> tuple[Tensor, Tensor]:
        """The encoder frames of a batch and its flush (B, N, D), lens (B,), in parallel; from stored features where it has them.

        Raises InputError for features that another frontend stored.
        """
        if batch.feats is None:
            return self.encode(*self.with_flush(batch.wav, batch.wav_lens), chunk)
        frontend: Any = self.frontend
        if getattr(frontend, "fingerprint", None) != batch.feats_by:
            raise InputError(
                f"the stored features are those of the frontend {batch.feats_by}, not of this system's: run `reallm data features` again"
            )
        flushed = batch.wav_lens + self._flush(batch.wav_lens)
        feats, feat_lens = frontend.from_stored(batch.feats, batch.wav_lens, flushed)
        return self._encode_features(feats, feat_lens, chunk)

    def _encode_features(self, feats: Tensor, feat_lens: Tensor, chunk: ChunkSpec | None) -> tuple[Tensor, Tensor]:
        if self.training and self.spec_augment is not None:
            feats = self.spec_augment(feats, feat_lens)
        return self.encoder.forward(self._for_encoder(feats), feat_lens, chunk)

    def _for_encoder(self, feats: Tensor) -> Tensor:
        dtype = parameter_dtype(self.encoder)
        return feats if dtype is None else feats.to(dtype)

    def init_acoustic_state(self, batch: int, device: torch.device | str, dtype: torch.dtype) -> AcousticState:
        """The state of ``batch`` new streams."""
        frontend = self.frontend.init_state(batch, device, audio_dtype(dtype))
        return AcousticState(frontend, self.encoder.init_state(batch, device, dtype))

    def encode_step(self, wav: Tensor, lens: Tensor, final: Tensor, state: AcousticState) -> tuple[Tensor, Tensor, AcousticState]:
        """wav (B, S_c) → enc (B, N_c, D), lens (B,), state."""
        feats, feat_lens, frontend = self.frontend.step(wav, lens, final, state.frontend)
        enc, enc_lens, encoder = self.encoder.step(self._for_encoder(feats), feat_lens, final, state.encoder)
        return enc, enc_lens, AcousticState(frontend, encoder)


def check_decoder(encoder: Encoder, adapter: Adapter, decoder: Decoder, tokenizer: Tokenizer, last: str) -> None:
    """Raises InputError for parts of other widths than their neighbours', and a vocabulary that is not the tokenizer's and ``last``.

    Where the decoder knows its tokenizer it must be this very one: tokenizers of equal sizes are not equal.
    """
    if encoder.output_dim != adapter.input_dim or adapter.output_dim != decoder.input_dim:
        raise InputError(
            f"widths do not fit: encoder {encoder.output_dim} → adapter {adapter.input_dim}, "
            f"adapter {adapter.output_dim} → decoder {decoder.input_dim}"
        )
    if decoder.vocab_size != tokenizer.vocab_size + 1:
        raise InputError(f"decoder vocab_size {decoder.vocab_size} must be {tokenizer.vocab_size + 1}: the tokenizer's tokens, and {last}")
    own = getattr(decoder, "tokenizer_fingerprint", None)
    if own not in (None, tokenizer.fingerprint):
        raise InputError(
            f"the decoder's weights were trained with another tokenizer (fingerprint {str(own)[:12]}) than the one given "
            f"({tokenizer.fingerprint[:12]}), of as many tokens: take the tokenizer.json that lies beside the weights"
        )


def _spec_augment(settings: Mapping[str, int]) -> SpecAugment:
    known = list(inspect.signature(SpecAugment).parameters)
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"spec_augment has no setting '{name}'{nearest(name, known)}: one of {', '.join(known)}")
        if not isinstance(value, int) or value < 0:
            raise InputError(f"spec_augment: {name} is {value!r}: a whole number from 0 on")
    return SpecAugment(**settings)
