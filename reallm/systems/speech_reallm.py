"""Speech ReaLLM (Seide et al. 2024, arXiv 2406.09569): a decoder-only model that answers every speech embedding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reallm.errors import InputError, at_least
from reallm.interleavers._jitter import jittered
from reallm.protocols import Adapter, ChunkSpec, Decoder, Encoder, Frontend, Interleaver, RowOptions, Searcher, Tokenizer, takes_options
from reallm.registry import find, register
from reallm.streaming.state import StreamingState
from reallm.systems._acoustic import AcousticModel, AcousticState, Samples, check_decoder
from reallm.systems._scheduled_sampling import with_own_answers
from reallm.systems.reallm import ReaLLM
from reallm.types import Batch, Emission, Scored, Seconds


@dataclass
class SpeechReaLLMState(StreamingState):
    """Streaming states of all parts."""

    acoustic: AcousticState
    adapter: StreamingState
    search: StreamingState
    delay: Tensor  # (B,) int64, token periods


@register("system", "speech_reallm")
class SpeechReaLLM(AcousticModel):
    """Speech embeddings and text in one sequence; streaming without end-pointing.

    With ``training_delays`` it is one model for every latency, as in delayed-streams modelling (arXiv 2509.08753, section 3): a delay
    is drawn for each training utterance, and each stream is told its own by a learned embedding that is added to every speech
    embedding. A prompt before the stream would take a position, and would leave the decoder's window, or its memory, as the stream goes on.

    Args:
        frontend, encoder, adapter, decoder, interleaver, searcher, tokenizer: the components. The decoder's vocabulary
            is the tokenizer's and BLANK, which is the last id.
        delay: token periods between the end of a token, as aligned, and the speech embedding that it answers; with ``training_delays``
            that of streams which do not choose one.
        flush_periods: periods of silence at the end of every stream and training utterance; at least the longest delay, or the
            last token would have no speech embedding to answer. Default: the longest delay, which leaves none for a token that comes late,
            or waits for its place (interleavers/delayed_stream.py): one or two more do.
        training_chunks: see AcousticModel.
        spec_augment: see AcousticModel.
        label_smoothing: of the cross-entropy over all positions.
        token_durations: seconds, for each token of the tokenizer, from its start to the end of the token period that it ended in:
            where words begin is estimated from them. Default: the token period. ``reallm export`` measures them.
        training_delays: the least and the most of the delays that training draws from, evenly, and streams choose from. Default: ``delay``
            alone, of which the decoder is told nothing.
        blank_weight: see ReaLLM.
        time_jitter: token periods by which, in training alone, the end of each token is moved at most, to and fro: see
            interleavers/_jitter.py. 0: none is.
        scheduled_sampling: p, the probability with which, in training alone, an answer that is fed back is the decoder's own instead of the
            true one: see systems/_scheduled_sampling.py. It costs one more pass of the decoder, without gradient. 0: none is.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        adapter: Adapter,
        decoder: Decoder,
        interleaver: Interleaver,
        searcher: Searcher,
        tokenizer: Tokenizer,
        delay: int = 1,
        flush_periods: int | None = None,
        training_chunks: Sequence[ChunkSpec | None] | None = None,
        spec_augment: Mapping[str, int] | None = None,
        label_smoothing: float = 0.0,
        token_durations: Sequence[float] | None = None,
        training_delays: Sequence[int] | None = None,
        blank_weight: float = 1.0,
        time_jitter: int = 0,
        scheduled_sampling: float = 0.0,
    ) -> None:
        delays = (delay, delay) if training_delays is None else tuple(training_delays)
        flush_periods = max(delay, *delays) if flush_periods is None else flush_periods
        period = frontend.frame_shift * encoder.geometry.stride * adapter.stride
        super().__init__(frontend, encoder, tokenizer, period, flush_periods, training_chunks, spec_augment)
        if delay < 0 or flush_periods < delay:
            raise InputError(f"delay {delay}, flush_periods {flush_periods}: needs 0 <= delay <= flush_periods")
        if len(delays) != 2 or not 0 <= delays[0] <= delay <= delays[1] <= flush_periods:
            raise InputError(
                f"training_delays {list(delays)}: needs the least and the most, such as [0, 4], delay {delay} between them, and "
                f"flush_periods {flush_periods} at least the most"
            )
        at_least(0, time_jitter=time_jitter)
        if not 0 <= scheduled_sampling <= 1:
            raise InputError(f"scheduled_sampling {scheduled_sampling} is no probability: from 0, which feeds true answers, to 1")
        check_decoder(encoder, adapter, decoder, tokenizer, "BLANK")
        if interleaver.blank_id != tokenizer.vocab_size:
            raise InputError(f"blank_id {interleaver.blank_id} must be {tokenizer.vocab_size}: the id after the tokenizer's tokens")
        chunk = encoder.chunk
        if chunk.size % adapter.stride or chunk.right % adapter.stride:
            frame = self.frame_samples / self.sample_rate
            raise InputError(
                f"a chunk of {chunk.size * frame:g} s (look-ahead {chunk.right * frame:g} s) is not a multiple of the token period "
                f"{period / self.sample_rate:g} s: change the encoder's chunk or the adapter's stride"
            )
        self.adapter, self.decoder, self.interleaver, self.searcher = adapter, decoder, interleaver, searcher
        self.delay, self.label_smoothing, self.blank_weight, self.time_jitter = delay, label_smoothing, blank_weight, time_jitter
        self.delays, self.scheduled_sampling = delays, scheduled_sampling
        _ = self._model  # refuses the settings that are its own
        self.delay_embedding = None if training_delays is None else nn.Embedding(delays[1] - delays[0] + 1, decoder.input_dim)
        if self.delay_embedding is not None:
            nn.init.normal_(self.delay_embedding.weight, std=0.02)
        seconds = [period / self.sample_rate] * tokenizer.vocab_size if token_durations is None else list(token_durations)
        if len(seconds) != tokenizer.vocab_size or not all(0 < s < math.inf for s in seconds):
            raise InputError(f"token_durations must be {tokenizer.vocab_size} numbers above 0, one a token: export the system again")
        # Not a weight: checkpoints hold what is trained.
        self.register_buffer("token_samples", torch.tensor([max(1, round(s * self.sample_rate)) for s in seconds]), persistent=False)
        self.token_samples: Tensor

    @classmethod
    def tiny(cls) -> "SpeechReaLLM":
        tokenizer = find("tokenizer", "character").tiny()
        encoder = find("encoder", "conformer").tiny()
        dim = 16
        return cls(
            frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
            encoder=encoder,
            adapter=find("adapter", "stack")(input_dim=encoder.output_dim, output_dim=dim, stride=2),
            decoder=find("decoder", "llama")(vocab_size=tokenizer.vocab_size + 1, dim=dim, layers=2, heads=2, window=16),
            interleaver=find("interleaver", "blank")(blank_id=tokenizer.vocab_size),
            searcher=find("searcher", "greedy").tiny(),
            tokenizer=tokenizer,
        )

    @property
    def _model(self) -> ReaLLM:
        return ReaLLM(self.decoder, self.interleaver, self.searcher, self.label_smoothing, self.blank_weight)

    def _flush(self, samples: Samples) -> Samples:
        """To the end of a token period and ``flush_periods`` more, and on until the last speech embedding is one that is answered."""
        flush = super()._flush(samples)
        return flush + -(samples + flush) % (self.period_samples * self.interleaver.response_every)

    def embeddings(self, wav: Tensor, lens: Tensor, chunk: ChunkSpec | None) -> tuple[Tensor, Tensor]:
        """wav (B, S), the flush included → speech embeddings (B, M, D_lm), lens (B,)."""
        return self.adapter.forward(*self.encode(wav, lens, chunk))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy over the positions of the interleaved sequences (Seide et al. 2024), and its parts on text and BLANK.

        Raises InputError for a batch without alignments.
        """
        if batch.alignments is None:
            raise InputError("speech_reallm trains on aligned cuts, and these have no token alignments: run 'reallm align' first")
        speech, speech_lens = self.adapter.forward(*self.hear(batch, self.draw_chunk()))
        delay = torch.full((len(batch.ids),), self.delay)
        if self.training and self.delay_embedding is not None:
            delay = torch.randint(self.delays[0], self.delays[1] + 1, delay.shape)
        alignments, lens = batch.alignments, speech_lens.cpu()
        if self.training and self.time_jitter:
            alignments = [
                jittered(each, self.time_jitter, int(length), int(late), self.period_samples)
                for each, length, late in zip(alignments, lens, delay, strict=True)
            ]
        laid_out = self.interleaver.build(alignments, lens, delay, self.period_samples)
        told, model = self._told(speech, delay.to(speech.device)), self._model
        if self.training and self.scheduled_sampling:
            laid_out = with_own_answers(model, told, laid_out, self.scheduled_sampling)
        return model.loss(told, laid_out)

    def _told(self, speech: Tensor, delay: Tensor) -> Tensor:
        """speech (B, M, D_lm) with the delays (B,) that its rows are to keep."""
        if self.delay_embedding is None:
            return speech
        return speech + self.delay_embedding(delay - self.delays[0]).unsqueeze(1)

    def stream_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Speech embeddings (B, M, D_lm) of a batch and its flush, lens (B,), as the decoder hears them in streams with its own delay."""
        speech, lens = self.adapter.forward(*self.hear(batch, self.encoder.chunk))
        return self._told(speech, torch.full_like(lens, self.delay)), lens

    def _own_time(self, emission: Emission, delay: Tensor) -> Emission:
        """An emission of rows with the delays (B,), its frames as if all had the system's own: ``token_span`` knows no other."""
        if self.delay_embedding is None:
            return emission
        return replace(emission, frame=(emission.frame + (self.delay - delay).unsqueeze(1)).clamp(min=0))

    def delay_periods(self, delay: Seconds) -> int:
        """The delay, in token periods, that is nearest to one in seconds. Raises InputError for one that it was not trained for."""
        period = self.period_samples / self.sample_rate
        least, most = (periods * period for periods in self.delays)
        if not least - 1e-6 <= delay <= most + 1e-6:
            trained = f"from {least:g} to {most:g} s, in steps of {period:g} s" if most > least else f"of {least:g} s alone"
            raise InputError(f"delay {delay:g} s: this model was trained for delays {trained}")
        return round(delay / period)

    def begin(self, state: SpeechReaLLMState, rows: Tensor, options: RowOptions) -> None:
        """Let ``rows`` (B,) bool, before their first step, have these options; their delays are of ``delay_periods``."""
        state.delay = torch.where(rows, options.delay, state.delay)
        searcher: Any = self.searcher
        if takes_options(self):
            searcher.begin(state.search, rows, options)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> SpeechReaLLMState:
        """The state of ``batch`` new streams."""
        chunk = self.encoder.chunk
        capacity = -(-(chunk.size + chunk.right) // self.adapter.stride) + 1
        return SpeechReaLLMState(
            self.init_acoustic_state(batch, device, dtype),
            self.adapter.init_state(batch, device, dtype),
            self._model.init_state(batch, capacity, device, dtype),
            torch.full((batch,), self.delay, device=device),
        )

    @torch.inference_mode()
    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: SpeechReaLLMState) -> tuple[Emission, SpeechReaLLMState]:
        """wav (B, S_c) → the tokens that are due, state."""
        enc, enc_lens, acoustic = self.encode_step(wav, lens, final, state.acoustic)
        speech, speech_lens, adapter = self.adapter.step(enc, enc_lens, final, state.adapter)
        emission, search = self._model.step(self._told(speech, state.delay), speech_lens, final, state.search)
        return self._own_time(emission, state.delay), SpeechReaLLMState(acoustic, adapter, search, state.delay)

    def n_best(self, emitted: Sequence[int], state: SpeechReaLLMState, row: int) -> list[Scored]:
        """The hypotheses of a row that has put out ``emitted`` since its start, where the searcher keeps several."""
        searcher: Any = self.searcher
        return list(searcher.n_best(emitted, state.search, row))

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor, delay: Tensor | None = None) -> Emission:
        """Whole utterances wav (B, S) → their tokens; the flush is added here. Raises InputError beyond the decoder's capacity.

        ``delay``: (B,) int64, token periods, of ``training_delays``. Default: the system's own.
        """
        speech, speech_lens = self.embeddings(*self.with_flush(wav, lens), self.encoder.chunk)
        delay = torch.full_like(lens, self.delay) if delay is None else delay
        return self._own_time(self._model.respond(self._told(speech, delay), speech_lens), delay)

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """A token ended in the token period ``delay`` before the speech embedding at which it was due, and began its duration earlier."""
        lasts = self.token_samples[token_ids.clamp(0, self.token_samples.numel() - 1)]  # what lies in padding is no token
        due = self.interleaver.due(frame, lasts.double() / self.period_samples)
        end = (((due - self.delay).clamp(min=0) + 1) * self.period_samples).round().long()
        return (end - lasts).clamp(min=0), end
