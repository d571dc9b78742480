"""CTC (Graves et al. 2006): the alignment teacher with full context, and a streaming baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reallm.protocols import ChunkSpec, Encoder, Frontend, RowOptions, Tokenizer
from reallm.registry import find, register
from reallm.searchers._end_of_speech import LOG_SILENT, Silence
from reallm.streaming.context import length_mask
from reallm.streaming.state import StreamingState
from reallm.systems._acoustic import AcousticModel, AcousticState
from reallm.systems._texts import ctc_loss, padded_texts
from reallm.types import Batch, Emission


@dataclass
class CTCState(StreamingState):
    """Streaming states of the parts, and what collapsing needs."""

    acoustic: AcousticState
    previous: Tensor  # (B,) int64, the label of the last encoder frame
    frames: Tensor  # (B,) int64, encoder frames so far
    blank_penalty: Tensor  # (B,) float64
    silence: Silence


@register("system", "ctc")
class CTC(AcousticModel):
    """Encoder and one linear layer, with BLANK as the last label.

    Args:
        frontend, encoder, tokenizer: the components.
        flush_periods: encoder frames of silence at the end of every stream and training utterance.
        training_chunks: see AcousticModel; with None among them the model also aligns with full context.
        spec_augment: see AcousticModel.
        dropout: before the output layer, in training.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        tokenizer: Tokenizer,
        flush_periods: int = 0,
        training_chunks: Sequence[ChunkSpec | None] | None = None,
        spec_augment: Mapping[str, int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        period = frontend.frame_shift * encoder.geometry.stride
        super().__init__(frontend, encoder, tokenizer, period, flush_periods, training_chunks, spec_augment)
        self.blank_id = tokenizer.vocab_size
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.output_dim, tokenizer.vocab_size + 1)

    @classmethod
    def tiny(cls) -> "CTC":
        encoder = find("encoder", "conformer").tiny()
        return cls(
            frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
            encoder=encoder,
            tokenizer=find("tokenizer", "character").tiny(),
            flush_periods=1,
        )

    def _log_probs(self, enc: Tensor) -> Tensor:
        return torch.log_softmax(self.output(self.dropout(enc)).float(), dim=-1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The CTC loss a token; the texts are all that it needs. Raises InputError for characters the tokenizer does not know."""
        enc, enc_lens = self.hear(batch, self.draw_chunk())
        token_ids, token_lens = padded_texts(self.tokenizer, batch.texts)
        targets = token_lens.sum().clamp(min=1)
        return ctc_loss(self._log_probs(enc), enc_lens, token_ids, token_lens) / targets, {"targets": targets}

    @torch.inference_mode()
    def log_probs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, N, V) with full context, and lens (B,): what the CTC aligner aligns with."""
        enc, enc_lens = self.hear(batch, None)
        return self._log_probs(enc), enc_lens

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> CTCState:
        """The state of ``batch`` new streams."""
        return CTCState(
            self.init_acoustic_state(batch, device, dtype),
            torch.full((batch,), self.blank_id, device=device),
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.zeros(batch, dtype=torch.float64, device=device),
            Silence.start(batch, device),
        )

    def begin(self, state: CTCState, rows: Tensor, options: RowOptions) -> None:
        """Let ``rows`` (B,) bool, before their first step, have these options."""
        state.blank_penalty = torch.where(rows, options.blank_penalty, state.blank_penalty)
        state.silence.begin(rows, options.silence)

    @torch.inference_mode()
    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: CTCState) -> tuple[Emission, CTCState]:
        """wav (B, S_c) → the tokens that begin in these encoder frames, state."""
        enc, enc_lens, acoustic = self.encode_step(wav, lens, final, state.acoustic)
        log_probs = self._log_probs(enc)
        blank = log_probs[:, :, self.blank_id]
        certain = blank >= LOG_SILENT
        blank -= state.blank_penalty.to(log_probs.dtype).unsqueeze(1)
        emission, last = self._collapse(log_probs, enc_lens, state.previous, state.frames)
        silent = certain & (log_probs.argmax(-1) == self.blank_id)
        emission.speech_ends, silence = state.silence.hear(silent, enc_lens, state.frames, emission)
        return emission, CTCState(acoustic, last, state.frames + enc_lens, state.blank_penalty, silence)

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S) → their tokens; the flush is added here."""
        enc, enc_lens = self.encode(*self.with_flush(wav, lens), self.encoder.chunk)
        start = torch.full_like(enc_lens, self.blank_id)
        return self._collapse(self._log_probs(enc), enc_lens, start, torch.zeros_like(enc_lens))[0]

    def _collapse(self, log_probs: Tensor, lens: Tensor, previous: Tensor, offset: Tensor) -> tuple[Emission, Tensor]:
        """Best path: drop repeats, then BLANKs. log_probs (B, N, V); previous label and frame offset (B,)."""
        best, labels = log_probs.max(dim=-1)
        history = torch.cat([previous.unsqueeze(1), labels], dim=1)
        size = labels.size(1)
        begins = (labels != history[:, :-1]) & (labels != self.blank_id) & length_mask(lens, size)
        # The frames at which tokens begin, first: a stable sort keeps their order.
        order = torch.argsort((~begins).long(), dim=1, stable=True)
        count = begins.sum(dim=1)
        frame = order + offset.unsqueeze(1)
        last = history.gather(1, lens.unsqueeze(1)).squeeze(1)
        return Emission(labels.gather(1, order), frame, best.gather(1, order), count, torch.zeros_like(count)), last

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder frame in which a token begins, in samples."""
        return frame * self.period_samples, (frame + 1) * self.period_samples
