"""Greedy search: the most probable answer at every decoder position, for all rows at once."""

import copy
import itertools
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import PolicyState, ResponseModel, RowOptions
from reallm.registry import register
from reallm.searchers._biasing import PhraseTable
from reallm.searchers._end_of_speech import LOG_SILENT, Silence
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
        frame, symbols, position = state.frame, state.symbols, state.position
        # One column more than can be filled: where a row has nothing to write it writes there.
        token_ids = torch.zeros(batch, capacity + 1, dtype=torch.int64, device=device)
        frames = torch.zeros_like(token_ids)
        log_probs = torch.zeros(batch, capacity + 1, device=device)
        count = torch.zeros(batch, dtype=torch.int64, device=device)
        cap_hits = torch.zeros_like(count)
        silent = torch.zeros(batch, most + 1, dtype=torch.bool, device=device)  # of the embeddings heard, likewise
        rows, first = torch.arange(batch, device=device), frame + 1
        blank_id, blank_penalty = model.interleaver.blank_id, state.blank_penalty.float()
        phrase, phrases = state.phrase, self.phrases.on(device)

        for number in itertools.count():
            pending = ~policy.wants_audio | (queue.count > 0)
            active = pending & (position < model.capacity) if model.capacity else pending
            if number == bound or ((bound is None or may_look(active)) and not bool(active.any())):
                break
            hears = active & policy.wants_audio
            reads = policy.token_ids >= 0
            inputs = torch.where(hears.unsqueeze(1), queue.front(), 0)
            inputs = inputs + torch.where(reads.unsqueeze(1), model.decoder.embed(policy.token_ids.clamp(min=0)), 0)
            queue = queue.drop(hears)
            frame = frame + hears
            symbols = torch.where(hears, 0, symbols)
            logits, decoder = model.decoder.step(inputs, active, decoder)

            scores = torch.log_softmax(logits.float(), dim=-1)
            certain = scores[:, blank_id] >= LOG_SILENT
            scores[:, blank_id] -= blank_penalty  # in place: the scores of tokens, which are put out, stay what they were
            output = self.choose(scores, blank_id, position)
            if phrases is not None:
                likely = scores + phrases.gain[phrase]
                likely[:, blank_id] = -torch.inf
                output = torch.where(output == blank_id, output, self.choose(likely, blank_id, position))
            capped = (symbols >= self.max_symbols) & (output != blank_id) & active
            output = torch.where(capped, blank_id, output)
            cap_hits = cap_hits + capped
            silent[rows, torch.where(hears, frame - first, most)] = certain & (output == blank_id)
            text, policy = model.interleaver.advance(output, active, policy)
            if phrases is not None:
                phrase = phrases.advance(phrase, text, output)

            column = torch.where(text, count, capacity)
            token_ids[rows, column] = output
            frames[rows, column] = frame
            log_probs[rows, column] = scores[rows, output]
            count = count + text
            symbols = torch.where(active, torch.where(text, symbols + 1, 0), symbols)
            position = position + active
        exhausted = pending & ~active if model.capacity else None
        emission = Emission(token_ids[:, :capacity], frames[:, :capacity], log_probs[:, :capacity], count, cap_hits, exhausted)
        every = model.interleaver.response_every
        emission.speech_ends, silence = state.silence.hear(silent[:, :most], frame - state.frame, first, emission, every)
        if bound is not None:
            emission.pending, emission.full = active, queue.count > size // ROOM
        return emission, SearchState(queue, decoder, policy, frame, symbols, position, state.blank_penalty, silence, phrase)

    def choose(self, scores: Tensor, blank_id: int, position: Tensor) -> Tensor:
        """The answers (B,) at decoder positions ``position`` (B,), given log-probabilities ``scores`` (B, V), BLANK's less its penalty."""
        return scores.argmax(dim=-1)
