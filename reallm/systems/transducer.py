"""RNN-T (Graves 2012, arXiv 1211.3711): a streaming rival of Speech ReaLLM, and an alignment teacher with full context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.interleavers.blank import BlankInterleaver
from reallm.layers.joiner import Joiner
from reallm.protocols import ChunkSpec, Decoder, Encoder, Frontend, Predictor, ResponseModel, RowOptions, Searcher, Tokenizer, to_the_end
from reallm.registry import find, register
from reallm.streaming.state import StreamingState
from reallm.systems._acoustic import AcousticModel, AcousticState
from reallm.systems._texts import ctc_loss, ctc_output, padded, padded_texts
from reallm.systems._transducer_decoder import TransducerDecoder
from reallm.types import Batch, Emission, Scored

MOST_NUMBERS = 1 << 24  # of the joiner at a time, where no gradient is wanted


@dataclass
class TransducerState(StreamingState):
    """Streaming states of all parts."""

    acoustic: AcousticState
    search: StreamingState


@register("system", "transducer")
class Transducer(AcousticModel):
    """Encoder, predictor and joiner; each encoder frame is answered with any number of tokens and BLANK.

    Args:
        frontend, encoder, predictor, searcher, tokenizer: the components. The predictor's vocabulary is the tokenizer's and
            BLANK, which is the last id; a searcher's responses are the tokens of one encoder frame.
        joiner_dim: width of the joiner. Default: the predictions'.
        flush_periods: encoder frames of silence at the end of every stream and training utterance.
        training_chunks: see AcousticModel; with None among them the model also aligns with full context.
        spec_augment: see AcousticModel.
        dropout: of the encoder frames that are joined, in training.
        ctc_weight: w of the training loss (1 - w) · transducer + w · CTC of the encoder (Boyer et al. 2021, arXiv 2201.05420).
            Without it the predictor learns what follows what long before the joiner listens, and an encoder forgets meanwhile what it knew.
            0 = no CTC layer. The search does not use it, nor does the aligner.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        predictor: Predictor,
        searcher: Searcher,
        tokenizer: Tokenizer,
        joiner_dim: int | None = None,
        flush_periods: int = 0,
        training_chunks: Sequence[ChunkSpec | None] | None = None,
        spec_augment: Mapping[str, int] | None = None,
        dropout: float = 0.0,
        ctc_weight: float = 0.0,
    ) -> None:
        period = frontend.frame_shift * encoder.geometry.stride
        super().__init__(frontend, encoder, tokenizer, period, flush_periods, training_chunks, spec_augment)
        self.blank_id = tokenizer.vocab_size
        if predictor.vocab_size != self.blank_id + 1:
            raise InputError(
                f"predictor vocab_size {predictor.vocab_size}: the tokenizer has {self.blank_id} tokens, so it must be {self.blank_id + 1}"
            )
        self.predictor, self.searcher = predictor, searcher
        self.dropout = nn.Dropout(dropout)
        self.joiner = Joiner(encoder.output_dim, predictor.output_dim, joiner_dim or predictor.output_dim, predictor.vocab_size)
        self.ctc_weight = ctc_weight
        self.ctc_output = ctc_output(encoder.output_dim, predictor.vocab_size, ctc_weight)

    @classmethod
    def tiny(cls) -> "Transducer":
        tokenizer = find("tokenizer", "character").tiny()
        encoder = find("encoder", "conformer").tiny()
        return cls(
            frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
            encoder=encoder,
            predictor=find("predictor", "stateless")(vocab_size=tokenizer.vocab_size + 1, dim=12, context=2),
            searcher=find("searcher", "greedy").tiny(),
            tokenizer=tokenizer,
            flush_periods=1,
        )

    @property
    def _decoder(self) -> TransducerDecoder:
        return TransducerDecoder(self.predictor, self.joiner)

    @property
    def _model(self) -> ResponseModel:
        # Searchers take steps alone; the parallel pass of a transducer is its lattice.
        return ResponseModel(cast(Decoder, self._decoder), BlankInterleaver(self.blank_id))

    def _predictions(self, tokens: Tensor, lens: Tensor) -> Tensor:
        """tokens (B, U), lens (B,) → predictions (B, U + 1, D) as the joiner takes them."""
        labels = nn.functional.pad(tokens, (1, 0), value=self.blank_id)
        return self.joiner.text(self.predictor.forward(self.predictor.embed(labels), lens + 1))

    def _answers(self, audio: Tensor, text: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the joiner makes of audio (B, N, D) and text (B, U + 1, D): log-probabilities of BLANK (B, N, U + 1) and of the next of
        tokens (B, U), (B, N, U)."""
        scores = torch.log_softmax(self.joiner(audio.unsqueeze(2), text.unsqueeze(1)).float(), dim=-1)
        wanted = tokens[:, None, :, None].expand(-1, audio.size(1), -1, -1)
        return scores[..., self.blank_id], scores[:, :, :-1].gather(3, wanted).squeeze(3)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The transducer loss a token, over all alignments, with CTC where it has a weight; the texts are all that it needs.

        Raises InputError for characters the tokenizer does not know.
        """
        from torchaudio.functional import rnnt_loss  # part of training: who transcribes need not have it

        enc, enc_lens = self.hear(batch, self.draw_chunk())
        tokens, token_lens = (t.to(enc.device) for t in padded_texts(self.tokenizer, batch.texts))
        text = self._predictions(tokens, token_lens)
        audio = self.joiner.audio(self.dropout(enc[:, : int(enc_lens.max())]))
        blanks, following = self._answers(audio, text, tokens)
        # Of all the vocabulary the loss needs two answers a node: torchaudio takes a third of the time for these.
        answers = torch.stack([nn.functional.pad(following, (0, 1)), blanks], dim=3)
        lengths = (enc_lens.int(), token_lens.int())
        losses = rnnt_loss(answers, torch.zeros_like(tokens).int(), *lengths, blank=1, reduction="none", fused_log_softmax=False)
        targets = token_lens.sum().clamp(min=1)
        loss = losses.sum() / targets
        if self.ctc_output is None:
            return loss, {"targets": targets}
        aside = ctc_loss(torch.log_softmax(self.ctc_output(enc).float(), dim=-1), enc_lens, tokens, token_lens) / targets
        stats = {"targets": targets, "loss_transducer": loss.detach(), "loss_ctc": aside.detach()}
        return (1 - self.ctc_weight) * loss + self.ctc_weight * aside, stats

    @torch.inference_mode()
    def lattice_scores(self, batch: Batch, token_ids: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The lattice of each utterance's tokens (U_b,) with full context: what the RNN-T aligner aligns with.

        Returns:
            Log-probabilities of BLANK (B, N, U + 1) and of the next token (B, N, U), where N frames were heard and u tokens
            said, and lens (B,) of the frames.
        """
        enc, enc_lens = self.hear(batch, None)
        tokens, token_lens = (t.to(enc.device) for t in padded(token_ids))
        text = self._predictions(tokens, token_lens)
        block = max(1, MOST_NUMBERS // (text.size(0) * text.size(1) * max(self.joiner.dim, self.joiner.vocab_size)))
        blanks: list[Tensor] = []
        following: list[Tensor] = []
        for audio in self.joiner.audio(enc).split(block, dim=1):
            for found, part in zip((blanks, following), self._answers(audio, text, tokens), strict=True):
                found.append(part)
        return torch.cat(blanks, dim=1), torch.cat(following, dim=1), enc_lens

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> TransducerState:
        """The state of ``batch`` new streams."""
        chunk = self.encoder.chunk
        capacity = chunk.size + chunk.right + 1
        return TransducerState(
            self.init_acoustic_state(batch, device, dtype),
            self.searcher.init_state(self._model, batch, capacity, device, dtype),
        )

    def begin(self, state: TransducerState, rows: Tensor, options: RowOptions) -> None:
        """Let ``rows`` (B,) bool, before their first step, have these options."""
        searcher: Any = self.searcher
        searcher.begin(state.search, rows, options)

    @torch.inference_mode()
    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: TransducerState) -> tuple[Emission, TransducerState]:
        """wav (B, S_c) → the tokens that these encoder frames are answered with, state."""
        enc, enc_lens, acoustic = self.encode_step(wav, lens, final, state.acoustic)
        emission, search = self.searcher.step(self._model, self._decoder.hear(enc), enc_lens, final, state.search)
        return emission, TransducerState(acoustic, search)

    def n_best(self, emitted: Sequence[int], state: TransducerState, row: int) -> list[Scored]:
        """The hypotheses of a row that has put out ``emitted`` since its start, where the searcher keeps several."""
        searcher: Any = self.searcher
        return list(searcher.n_best(emitted, state.search, row))

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S) → their tokens; the flush is added here."""
        enc, enc_lens = self.encode(*self.with_flush(wav, lens), self.encoder.chunk)
        searcher = to_the_end(self.searcher)
        state = searcher.init_state(self._model, wav.size(0), enc.size(1), wav.device, enc.dtype)
        everything = torch.ones_like(enc_lens, dtype=torch.bool)
        return searcher.step(self._model, self._decoder.hear(enc), enc_lens, everything, state)[0]

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder frame that a token answers, in samples."""
        return frame * self.period_samples, (frame + 1) * self.period_samples
