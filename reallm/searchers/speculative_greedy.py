"""Greedy search that answers several positions in one pass of the decoder, taking for granted that nothing is said at them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import PolicyState, ResponseModel
from reallm.registry import register
from reallm.searchers.greedy import GreedySearcher, SearchState
from reallm.streaming.host import may_look
from reallm.streaming.state import StreamingState, advance, tensors
from reallm.types import Emission


@dataclass
class Pass(StreamingState):
    """What the decoder answers at K positions of each row, computed at once; of each row, the last pass that was its own."""

    inputs: Tensor  # (B, K, D), what is answered
    logits: Tensor  # (B, K, V)
    extension: StreamingState  # what the decoder's state is lengthened by


class PositionsAhead:
    """To greedy search a decoder and an interleaver; in truth it answers from a pass that began some positions ago, where it can.

    An answer is given only to the very input that it was computed from, with all inputs before it those that were consumed. Where
    one differs, what was computed behind it is dropped, and the row's next pass begins there (Leviathan et al. 2023, arXiv 2211.17192,
    with BLANK as the draft, and inputs compared instead of probabilities).

    The decoder computes all rows, but a pass is only that of the rows which need one: the others keep theirs. So where in a pass a
    position lies, on which the last bits of its answer hang, is decided by its own row.

    Args:
        model: whose decoder has ``extend`` and ``accept``.
        ahead: K, positions of a pass at most.
        state: of the search; all speech embeddings that this step brings are in its queue.
    """

    def __init__(self, model: ResponseModel, ahead: int, state: SearchState) -> None:
        self._interleaver, self._ahead = model.interleaver, ahead
        self._decoder: Any = model.decoder
        self._queue, self._policy = state.queue, state.policy  # the queue as it is when the step begins
        self._rows = torch.arange(state.frame.size(0), device=state.frame.device)
        self._used = torch.zeros_like(state.frame)  # answers of each row's pass that were given
        self._heard = torch.zeros_like(state.frame)  # speech embeddings of the queue that were answered
        self._pass: Pass | None = None
        self.embed = model.decoder.embed
        self.capacity = model.capacity
        self.blank_id, self.response_every = model.interleaver.blank_id, model.interleaver.response_every

    def step(self, inputs: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As a decoder's, but that the state of each row stays where its pass begins until the next one does; see ``end``."""
        begins = active & ~self._is_known(inputs)
        if self._pass is None or bool(begins.any()):
            state = self._accept(begins, state)
            self._begin(begins, inputs, state)
        assert self._pass is not None
        self._heard = self._heard + (active & self._policy.wants_audio)
        logits = self._pass.logits[self._rows, self._next(self._pass)]
        self._used = self._used + active
        return logits, state

    def advance(self, output: Tensor, active: Tensor, policy: PolicyState) -> tuple[Tensor, PolicyState]:
        """The interleaver's."""
        text, self._policy = self._interleaver.advance(output, active, policy)
        return text, self._policy

    def end(self, state: Any) -> StreamingState:
        """The decoder's state after all answers that were given. Nothing is answered afterwards."""
        return self._accept(torch.ones_like(self._used, dtype=torch.bool), state)

    def _is_known(self, inputs: Tensor) -> Tensor:
        """(B,) bool: the next answer of the row's pass is one to these ``inputs`` (B, D)."""
        if self._pass is None:
            return torch.zeros_like(self._used, dtype=torch.bool)
        planned = self._pass.inputs[self._rows, self._next(self._pass)]
        return (self._used < self._pass.inputs.size(1)) & (planned == inputs).all(1)

    def _next(self, found: Pass) -> Tensor:
        """(B,) int64, the position of each row's next answer, or its last one."""
        return self._used.clamp(max=found.inputs.size(1) - 1)

    def _accept(self, rows: Tensor, state: Any) -> Any:
        """The decoder's state, of ``rows`` (B,) bool after the answers that were given from their passes, which are over."""
        if self._pass is not None:
            state = self._decoder.accept(self._pass.extension, torch.where(rows, self._used, 0), state)
            self._used = torch.where(rows, 0, self._used)
        return state

    def _begin(self, rows: Tensor, inputs: Tensor, state: Any) -> None:
        """A pass of ``rows`` (B,) bool over their ``inputs`` (B, D), and over what follows them where each answer is BLANK: for one row as
        far as there is something, for several K positions each."""
        queue, policy, active, most = self._queue.drop(self._heard), self._policy, rows, self._ahead
        frames = F.pad(queue.first(most), (0, 0, 0, 1)).flatten(0, 1)  # each row's with zeros behind them, heard where none is
        at = self._rows * (most + 1)
        nothing, end = at + most, at + queue.count
        blank, planned = torch.full_like(self._used, self.blank_id), [inputs]
        while len(planned) < most:
            at, before = at + (active & policy.wants_audio), policy
            _, policy = self._interleaver.advance(blank, active, policy)
            active = (at < end) >= policy.wants_audio
            if may_look(active):
                if not bool(active.any()):
                    break
                if bool(policy.wants_audio.all()) and all(map(torch.equal, tensors(policy), tensors(before))):
                    ahead = at.unsqueeze(1) + torch.arange(most - len(planned), device=at.device)  # and so it goes on
                    heard = frames[torch.where(ahead < end.unsqueeze(1), ahead, nothing.unsqueeze(1))]
                    planned += heard[:, : int((end - at).amax())].unbind(1)
                    break
            heard = frames.index_select(0, torch.where(active & policy.wants_audio, at, nothing))
            reads = policy.token_ids >= 0
            if not may_look(reads) or bool(reads.any()):
                heard = heard + torch.where(reads.unsqueeze(1), self.embed(policy.token_ids.clamp(min=0)), 0)
            planned.append(heard)
        if len(self._rows) > 1:  # passes of rows are kept apart, and all as long
            planned += [torch.zeros_like(inputs)] * (most - len(planned))
        together = torch.stack(planned, dim=1)
        found = Pass(together, *self._decoder.extend(together, state))
        self._pass = found if self._pass is None else advance(rows, found, self._pass)


@register("searcher", "speculative_greedy")
class SpeculativeGreedySearcher(GreedySearcher):
    """Greedy search, and its answers, with fewer passes over the decoder's weights: for one stream, or a few, on a processor.

    Most speech embeddings of a short token period are answered with nothing but BLANK. A pass answers up to ``ahead`` positions as if
    all were; the next one begins at the first that is not. It takes about as long as one position does, as long as what takes time is
    to read the weights. One that a stream of a batch needs reads them for all, though it is of use to those alone that need one then, so
    that many streams gain little. A decoder without ``extend`` (see LlamaDecoder) answers one position a pass; one that has it
    says what it cannot do by ``require_window``.

    Args:
        ahead: the most positions of a pass: best the speech embeddings of a chunk, and one.
        max_symbols, blank_penalty, positions: as in greedy search.

    Raises InputError for an ``ahead``, ``max_symbols`` or ``positions`` below 1.
    """

    def __init__(self, ahead: int = 5, max_symbols: int = 10, blank_penalty: float = 0.0, positions: int | None = None) -> None:
        super().__init__(max_symbols, blank_penalty, positions)
        if ahead < 1:
            raise InputError(f"ahead {ahead}: a pass answers at least one position")
        self.ahead = ahead

    @classmethod
    def tiny(cls) -> "SpeculativeGreedySearcher":
        """Three positions a pass, responses of three tokens at most."""
        return cls(ahead=3, max_symbols=3)

    def init_state(
        self, model: ResponseModel, batch: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> SearchState:
        """As greedy search. Raises InputError where the decoder's window has fewer than ``ahead`` positions."""
        decoder: Any = model.decoder
        if hasattr(decoder, "require_window"):
            decoder.require_window(self.ahead)
        return super().init_state(model, batch, capacity, device, dtype)

    @property
    def is_static(self) -> bool:
        """Never: where a pass begins hangs on the answers."""
        return False

    @torch.inference_mode()
    def step(
        self, model: ResponseModel, embeddings: Tensor, lens: Tensor, final: Tensor, state: SearchState
    ) -> tuple[Emission, SearchState]:
        """As greedy search."""
        if not hasattr(model.decoder, "extend"):
            return super().step(model, embeddings, lens, final, state)
        ahead: Any = PositionsAhead(model, self.ahead, replace(state, queue=state.queue.push(embeddings, lens)))
        emission, after = super().step(ResponseModel(ahead, ahead), embeddings, lens, final, state)
        return emission, replace(after, decoder=ahead.end(after.decoder))
