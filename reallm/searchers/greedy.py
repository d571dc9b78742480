"""Greedy search: the most probable answer at every decoder position, for all rows at once."""

import copy
import itertools
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import PolicyState, ResponseModel, RowOptions
from reallm.registry import register
from reallm.searchers._answers import Answers, Flags, Position
from reallm.searchers._biasing import PhraseTable
from reallm.searchers._end_of_speech import LOG_SILENT, Silence, no_ends
from reallm.streaming.frame_queue import FrameQueue
from reallm.streaming.host import may_look
from reallm.streaming.state import StreamingState
from reallm.types import Emission

ROOM = 3
"""Chunks that the queue has room for where a step is bounded: what waits, the next one, and what a push may write behind that."""


@dataclass
class SearchState(StreamingState):
    """Pending speech embeddings, the decoder, and where each response stands."""

    queue: FrameQueue
    decoder: StreamingState
    policy: PolicyState
    frame: Tensor  # (B,) int64, the speech embedding that is being answered; -1 before the first
    symbols: Tensor  # (B,) int64, tokens in the response so far
    position: Tensor  # (B,) int64, decoder positions consumed
    blank_penalty: Tensor  # (B,) float64
    silence: Silence
    phrase: Tensor  # (B,) int64, where the stream stands in its phrases


@register("searcher", "greedy")
class GreedySearcher:
    """One decoder position for all rows at a time: each row takes in its next speech embedding or its own last token, or rests.

    Towards the phrases of a stream (``phrases``, a PhraseTable) it is biased in what it says: where the model's answer is a token, that of
    the best score, bonus included, is taken. Where it is BLANK it stays BLANK, so that no phrase is said where nothing is.

    A step goes on until all rows are done, or for a fixed number of ``positions``: then no row waits for another's longer response. Rows
    that are not done go on in the next step (``Emission.pending``), and the tokens are the same. The host need not look at anything in
    such a step, so that an accelerator is not waited for.

    Args:
        max_symbols: the most tokens of one response; a response that is cut is counted in ``Emission.cap_hits``.
        blank_penalty: subtracted from the logit of BLANK, in streams that choose no other. Above 0 text comes sooner, with more insertions.
        positions: decoder positions of a step; None = until all rows are done. May be set on a trained system, before states are made.

    Raises InputError for a ``max_symbols`` or ``positions`` below 1.
    """

    def __init__(self, max_symbols: int = 10, blank_penalty: float = 0.0, positions: int | None = None) -> None:
        if max_symbols < 1:
            raise InputError(f"max_symbols {max_symbols}: a response needs room for at least one token")
        if positions is not None and positions < 1:
            raise InputError(f"positions {positions}: a step needs at least one, or null to go on until all streams are done")
        self.max_symbols, self.blank_penalty, self.positions = max_symbols, blank_penalty, positions
        self.phrases = PhraseTable()

    @classmethod
    def tiny(cls) -> "GreedySearcher":
        """Responses of three tokens at most."""
        return cls(max_symbols=3)

    @property
    def is_static(self) -> bool:
        """Whether a step does the same work whatever the numbers are, so that an accelerator can be told once what it does."""
        return self.positions is not None

    def unbounded(self) -> Self:
        """The same search, whose steps go on until all rows are done."""
        search = copy.copy(self)
        search.positions = None
        return search

    def init_state(
        self, model: ResponseModel, batch: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SearchState:
        """The state of ``batch`` new streams with room for ``capacity`` pending speech embeddings."""
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        capacity *= 1 if self.positions is None else ROOM
        return SearchState(
            queue=FrameQueue.allocate(batch, capacity, model.decoder.input_dim, device, dtype),
            decoder=model.decoder.init_state(batch, device, dtype),
            policy=model.interleaver.init_policy(batch, device),
            frame=zero - 1,
            symbols=zero,
            position=zero.clone(),
            blank_penalty=torch.full((batch,), self.blank_penalty, dtype=torch.float64, device=device),
            silence=Silence.start(batch, device),
            phrase=torch.full((batch,), self.phrases.start, device=device),
        )

    def begin(self, state: SearchState, rows: Tensor, options: RowOptions) -> None:
        """Let ``rows`` (B,) bool, before their first step, have these options."""
        state.blank_penalty = torch.where(rows, options.blank_penalty, state.blank_penalty)
        state.silence.begin(rows, options.silence)
        state.phrase = torch.where(rows, options.phrases, state.phrase)

    @torch.inference_mode()
    def step(
        self, model: ResponseModel, embeddings: Tensor, lens: Tensor, final: Tensor, state: SearchState
    ) -> tuple[Emission, SearchState]:
        """embeddings (B, M_c, D_lm), lens (B,) → the tokens of all responses to them. Greedy search holds nothing back.

        Where a step is bounded, a row that was ``full`` brings nothing. Raises InputError for a state that was made when it was not.
        """
        batch, size = embeddings.size(0), state.queue.frames.size(1)
        bound, device = self.positions, embeddings.device
        if bound is not None and size < ROOM * embeddings.size(1):
            raise InputError(f"positions {bound}: the state has no room for what waits: set it before the state is made")
        most, capacity = (size, size * self.max_symbols) if bound is None else (min(size, bound), bound)
        queue, decoder, policy = state.queue.push(embeddings, lens), state.decoder, state.policy
        symbols, position, phrase, phrases = state.symbols, state.position, state.phrase, self.phrases.on(device)
        # The speech embeddings that may be heard, each row's with zeros behind them, which are heard where none is.
        ahead = F.pad(queue.first(most), (0, 0, 0, 1)).flatten(0, 1)
        at = torch.arange(batch, device=device) * (most + 1)  # of each row's next one
        nothing, end = at + most, at + queue.count
        blank_id, blank_penalty = model.interleaver.blank_id, state.blank_penalty.float()
        blank, zero = torch.full((), blank_id, device=device), torch.zeros((), dtype=torch.int64, device=device)
        positions = list[Position]()

        for number in itertools.count():
            pending = (at < end) >= policy.wants_audio  # where no audio is wanted, or some waits
            active = pending & (position < model.capacity) if model.capacity else pending
            if number == bound or ((bound is None or may_look(active)) and not bool(active.any())):
                break
            hears = active & policy.wants_audio
            inputs = ahead.index_select(0, torch.where(hears, at, nothing))
            reads = policy.token_ids >= 0
            if not may_look(reads) or bool(reads.any()):
                inputs = inputs + torch.where(reads.unsqueeze(1), model.decoder.embed(policy.token_ids.clamp(min=0)), 0)
            at, symbols = at + hears, torch.where(hears, zero, symbols)
            logits, decoder = model.decoder.step(inputs, active, decoder)

            scores = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            of_blank = scores[:, blank_id]
            certain = of_blank >= LOG_SILENT
            of_blank -= blank_penalty  # in place: the scores of tokens, which are put out, stay what they were
            chosen = self.choose(scores, blank_id, position)
            if phrases is not None:
                likely = scores + phrases.gain[phrase]
                likely[:, blank_id] = -torch.inf
                chosen = torch.where(chosen == blank_id, chosen, self.choose(likely, blank_id, position))
            full = symbols >= self.max_symbols
            output = torch.where(full, blank, chosen)
            text, policy = model.interleaver.advance(output, active, policy)
            if phrases is not None:
                phrase = phrases.advance(phrase, text, output)
            flags = Flags(active, hears, certain, full, text)
            positions.append(Position(flags, chosen, output, scores.gather(1, output.unsqueeze(1))))
            symbols = torch.where(active, torch.where(text, symbols + 1, zero), symbols)
            position = position + active
        answers = Answers(positions, state.frame, blank_id)
        emission, heard, silence = answers.emission(capacity), answers.heard, state.silence
        emission.exhausted = pending & ~active if model.capacity else None
        queue, every = queue.drop(heard), model.interleaver.response_every
        if silence.is_asked():
            emission.speech_ends, silence = silence.hear(answers.silent(most), heard, state.frame + 1, emission, every)
        else:
            emission.speech_ends = no_ends(batch, most, device)
        if bound is not None:
            emission.pending, emission.full = active, queue.count > size // ROOM
        frame = state.frame + heard
        return emission, SearchState(queue, decoder, policy, frame, symbols, position, state.blank_penalty, silence, phrase)

    def choose(self, scores: Tensor, blank_id: int, position: Tensor) -> Tensor:
        """The answers (B,) at decoder positions ``position`` (B,), given log-probabilities ``scores`` (B, V), BLANK's less its penalty."""
        return scores.argmax(dim=-1)
