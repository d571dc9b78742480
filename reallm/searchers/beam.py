"""Time-synchronous beam search. Legend: reallm/types.py; K hypotheses a row, C candidates, P tokens that may be held back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor

from reallm.errors import InputError, nearest
from reallm.protocols import PolicyState, ResponseModel, RowOptions
from reallm.registry import register
from reallm.searchers._biasing import PhraseTable, Table
from reallm.searchers._end_of_speech import LOG_SILENT, NEVER
from reallm.searchers._hypotheses import Hypotheses
from reallm.streaming.frame_queue import FrameQueue
from reallm.streaming.state import StreamingState, map_states, select, tensors
from reallm.types import Emission, Scored, SpeechEnds

S = TypeVar("S", bound=StreamingState)


@dataclass
class BeamState(StreamingState):
    """Pending speech embeddings, and K hypotheses a row with a decoder each."""

    queue: FrameQueue
    decoder: StreamingState  # tensors (B, K, …)
    policy: PolicyState  # tensors (B, K)
    hypotheses: Hypotheses
    frame: Tensor  # (B,) int64, the speech embedding that is being answered; -1 before the first
    committed: Tensor  # (B,) int64, tokens put out that all hypotheses share
    blank_penalty: Tensor  # (B,) float64
    least_silence: Tensor  # (B,) int64, speech embeddings of silence that end speech


def _flat(state: S) -> S:
    return map_states(lambda t: t.flatten(0, 1), state)


def _unflat(state: S, beam: int) -> S:
    return map_states(lambda t: t.unflatten(0, (-1, beam)), state)


@register("searcher", "beam")
class BeamSearcher:
    """Hypotheses that answer the same speech embedding, pruned together after every decoder position.

    All unfinished responses of a row take one decoder position at once; those finished, which answered BLANK to this speech embedding,
    rest. The ``beam`` best of both together go on, so that a beam of 1 is greedy search. When all are finished, the row
    takes in its next speech embedding.

    Tokens are put out as soon as all live hypotheses agree on them and on the speech embeddings that they answer: they can never
    change. At the end of a stream, and at an end of speech, the rest of the best hypothesis follows. The delay of this waiting is
    therefore part of every measured emission delay.

    Towards the phrases of a stream (``phrases``, a PhraseTable) it is biased by their bonus, which is part of the scores, and is taken back
    from a hypothesis that does not complete a phrase.

    Args:
        beam: K, hypotheses a stream.
        merge: finished hypotheses of equal text, said at other times, become one, the better one, whose score is then the ``max``
            of the two or their ``logadd``; ``off`` keeps both.
        max_symbols: the most tokens of one response; a response of the best hypothesis that is cut is counted in ``Emission.cap_hits``.
        blank_penalty: subtracted from the logit of BLANK, in streams that choose no other, as in greedy search.
        max_pending: the most tokens that hypotheses may disagree about: where one has more, the best one goes on alone.

    Raises InputError for numbers below 1 and an unknown ``merge``.
    """

    def __init__(
        self,
        beam: int = 4,
        merge: Literal["max", "logadd", "off"] = "logadd",
        max_symbols: int = 10,
        blank_penalty: float = 0.0,
        max_pending: int = 64,
    ) -> None:
        if beam < 1 or max_symbols < 1 or max_pending < 1:
            raise InputError(f"beam {beam}, max_symbols {max_symbols}, max_pending {max_pending}: each must be at least 1")
        if merge not in ("max", "logadd", "off"):
            raise InputError(f"merge '{merge}'{nearest(str(merge), ['max', 'logadd', 'off'])}: one of max, logadd, off")
        self.beam, self.merge, self.max_symbols = beam, merge, max_symbols
        self.blank_penalty, self.max_pending = blank_penalty, max_pending
        self.phrases = PhraseTable()

    @classmethod
    def tiny(cls) -> "BeamSearcher":
        """Three hypotheses, responses of three tokens at most, few tokens held back."""
        return cls(beam=3, max_symbols=3, max_pending=6)

    def init_state(
        self, model: ResponseModel, batch: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> BeamState:
        """The state of ``batch`` new streams with room for ``capacity`` pending speech embeddings."""
        decoder = model.decoder.init_state(batch * self.beam, device, dtype)
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        return BeamState(
            queue=FrameQueue.allocate(batch, capacity, model.decoder.input_dim, device, dtype),
            decoder=_unflat(decoder, self.beam),
            policy=_unflat(model.interleaver.init_policy(batch * self.beam, device), self.beam),
            hypotheses=Hypotheses.start(batch, self.beam, self.max_pending + self.max_symbols, self.phrases.start, device),
            frame=zero - 1,
            committed=zero,
            least_silence=zero + NEVER,
            blank_penalty=torch.full((batch,), self.blank_penalty, dtype=torch.float64, device=device),
        )

    def begin(self, state: BeamState, rows: Tensor, options: RowOptions) -> None:
        """Let ``rows`` (B,) bool, before their first step, have these options."""
        state.blank_penalty = torch.where(rows, options.blank_penalty, state.blank_penalty)
        state.least_silence = torch.where(rows, options.silence, state.least_silence)
        state.hypotheses.phrase = torch.where(rows.unsqueeze(1), options.phrases.unsqueeze(1), state.hypotheses.phrase)

    @torch.inference_mode()
    def step(self, model: ResponseModel, embeddings: Tensor, lens: Tensor, final: Tensor, state: BeamState) -> tuple[Emission, BeamState]:
        """embeddings (B, M_c, D_lm), lens (B,) → the tokens that all hypotheses agree on by now; all of the best one in ``final`` rows."""
        queue, hypotheses = state.queue.push(embeddings, lens), state.hypotheses
        decoder, policy, frame = _flat(state.decoder), _flat(state.policy), state.frame
        most, phrases = queue.frames.size(1), self.phrases.on(embeddings.device)
        out = _Output(most * self.max_symbols + hypotheses.token_ids.size(2), most, lens)
        while True:
            wants_audio = policy.wants_audio.view_as(hypotheses.live)
            answering = hypotheses.live & ~wants_audio
            hears = ~answering.any(1) & (queue.count > 0)
            active = answering | (hypotheses.live & hears.unsqueeze(1))
            stuck = (active & (hypotheses.position >= (model.capacity or torch.inf))).any(1)
            active, hears = active & ~stuck.unsqueeze(1), hears & ~stuck
            if not bool(active.any()):
                break
            heard = torch.where(hears.unsqueeze(1), queue.front(), 0).repeat_interleave(self.beam, 0)
            reads = (policy.token_ids >= 0).unsqueeze(1)
            inputs = heard + torch.where(reads, model.decoder.embed(policy.token_ids.clamp(min=0)), 0)
            queue, frame = queue.drop(hears), frame + hears
            hypotheses.symbols = torch.where(hears.unsqueeze(1), 0, hypotheses.symbols)
            logits, decoder = model.decoder.step(inputs, active.flatten(), decoder)
            log_probs = logits.float().log_softmax(-1)
            hypotheses, policy, moved = self._expand(
                model, log_probs, active, hears, frame, hypotheses, policy, state.blank_penalty, phrases
            )
            if len(moved[0]):
                for tensor in tensors(decoder):
                    tensor.index_copy_(0, moved[0], tensor.index_select(0, moved[1]))
            answered = (policy.wants_audio.view_as(hypotheses.live) | ~hypotheses.live).all(1) & active.any(1)
            ended = answered & hypotheses.silent(state.least_silence)
            if phrases is not None:
                hypotheses.end_phrases(phrases, ended)
            hypotheses.keep_best(answered & (ended | hypotheses.apart(self.max_pending)))
            out.commit(hypotheses, torch.where(answered, hypotheses.shared(), 0))
            hypotheses.said = hypotheses.said & ~ended.unsqueeze(1)
            out.end_speech(ended, frame, state.frame + 1)
        hypotheses.keep_best(stuck)
        out.commit(hypotheses, torch.where(stuck, hypotheses.shared(), 0))
        committed = state.committed + out.count
        if phrases is not None:
            hypotheses.end_phrases(phrases, final)
        best = hypotheses.best()
        out.write(best, torch.where(final, best.length[:, 0], 0))  # the others stay, for n_best
        least = torch.where(hypotheses.live, hypotheses.cap_hits, torch.iinfo(torch.int64).max).amin(1)
        cap_hits = torch.where(final, best.cap_hits[:, 0], least)
        hypotheses.cap_hits = hypotheses.cap_hits - cap_hits.unsqueeze(1)
        decoder, policy = _unflat(decoder, self.beam), _unflat(policy, self.beam)
        after = BeamState(queue, decoder, policy, hypotheses, frame, committed, state.blank_penalty, state.least_silence)
        return out.emission(cap_hits, stuck if model.capacity else None), after

    def _expand(
        self,
        model: ResponseModel,
        log_probs: Tensor,
        active: Tensor,
        hears: Tensor,
        frame: Tensor,
        hypotheses: Hypotheses,
        policy: PolicyState,
        blank_penalty: Tensor,
        phrases: Table | None,
    ) -> tuple[Hypotheses, PolicyState, tuple[Tensor, Tensor]]:
        """Answers with ``log_probs`` (B · K, V) of the ``active`` (B, K) hypotheses, pruned with those that rest; rows ``hears`` (B,) do.

        Returns the hypotheses, their policies (B · K), and which decoder states move: to and from flat slots. The best child of a
        hypothesis stays in its slot, so that nothing moves as long as each has one, and no slot is both.
        """
        blank = model.interleaver.blank_id
        batch, beam = active.shape
        rows = torch.arange(batch, device=active.device).unsqueeze(1)
        # Where a token would not be text, the answer is not looked at: BLANK is being fed.
        a_token = torch.full_like(policy.token_ids, 0 if blank else 1)
        asked = active & model.interleaver.advance(a_token, active.flatten(), policy)[0].view_as(active)
        answers = log_probs.double().unflatten(0, (batch, beam))
        answers[:, :, blank] -= blank_penalty.unsqueeze(1)
        if phrases is not None:
            answers += phrases.gain[hypotheses.phrase]
        full = asked & (hypotheses.symbols >= self.max_symbols)
        cut = full & (answers.argmax(-1) != blank)
        only_blank = torch.arange(answers.size(2), device=answers.device) != blank
        answers.masked_fill_((~asked | full).unsqueeze(2) & only_blank, -torch.inf)
        answers[:, :, blank] = answers[:, :, blank].masked_fill(~asked, 0)

        total = (hypotheses.ranking.unsqueeze(2) + answers).flatten(1)
        score, index = total.topk(min(2 * beam, total.size(1)), dim=1)  # twice as many as go on: some will be merged
        parent, output = index // answers.size(2), index % answers.size(2)
        candidates = hypotheses.pick(parent)
        candidates.score, candidates.live = score, score > -torch.inf
        was_active = active.gather(1, parent) & candidates.live
        said, policy = model.interleaver.advance(output.flatten(), was_active.flatten(), select(policy, (rows * beam + parent).flatten()))
        said = said.view_as(output)
        candidates.append(said, output, frame.unsqueeze(1), log_probs[rows * beam + parent, output])
        candidates.symbols = torch.where(was_active, torch.where(said, candidates.symbols + 1, 0), candidates.symbols)
        candidates.position = candidates.position + was_active
        candidates.cap_hits = candidates.cap_hits + (cut.gather(1, parent) & was_active)
        silent = (output == blank) & (log_probs[:, blank].view_as(active) >= LOG_SILENT).gather(1, parent)
        silence = torch.where(silent, candidates.silence + model.interleaver.response_every, 0)
        candidates.silence = torch.where((asked & hears.unsqueeze(1)).gather(1, parent) & was_active, silence, candidates.silence)
        candidates.said = candidates.said | said
        if phrases is not None:
            candidates.phrase = phrases.advance(candidates.phrase, said, output)
        if self.merge != "off":
            self._merge(candidates, policy.wants_audio.view_as(output) & candidates.live)

        # Survivors, best first, to slots: a first child to its parent's, the others to those that are free.
        chosen = candidates.ranking.argsort(dim=1, descending=True, stable=True)[:, :beam]
        alive, parent = candidates.live.gather(1, chosen), parent.gather(1, chosen)
        siblings = (parent.unsqueeze(2) == parent.unsqueeze(1)).tril(-1).any(2)
        stays = alive & ~siblings
        free = torch.zeros_like(parent).scatter_add_(1, parent, stays.long()).argsort(dim=1, stable=True)
        slot = torch.where(stays, parent, free.gather(1, (~stays).long().cumsum(1).sub(1).clamp(min=0)))
        moves = (alive & ~stays).nonzero(as_tuple=True)
        moved = ((rows * beam + slot)[moves], (rows * beam + parent)[moves])
        chosen = chosen.gather(1, slot.argsort(dim=1))
        return candidates.pick(chosen), select(policy, (rows * index.size(1) + chosen).flatten()), moved

    def _merge(self, candidates: Hypotheses, finished: Tensor) -> None:
        """Make those of the ``finished`` (B, C) candidates that have equal texts one. Candidates come best first."""
        equal = candidates.equal(finished)
        if self.merge == "logadd":
            scores = candidates.ranking.unsqueeze(1).masked_fill(~equal, -torch.inf)
            candidates.score = scores.logsumexp(2)
        candidates.live = candidates.live & ~equal.tril(-1).any(2)

    def n_best(self, emitted: Sequence[int], state: BeamState, row: int = 0) -> list[Scored]:
        """The hypotheses of a row, best first.

        Args:
            emitted: all tokens that the row has put out since its start.
            state: after the last step, a final one for whole utterances.
        """
        shared, ranking = list(emitted[: int(state.committed[row])]), state.hypotheses.ranking[row]
        order = [slot for slot in ranking.argsort(descending=True, stable=True).tolist() if ranking[slot] > -torch.inf]
        held = [state.hypotheses.token_ids[row, s, : state.hypotheses.length[row, s]].tolist() for s in order]
        return [Scored(shared + tail, float(ranking[s])) for s, tail in zip(order, held, strict=True)]


class _Output:
    """What a step puts out: one column more than can be filled, where a row that has nothing to write writes."""

    def __init__(self, size: int, embeddings: int, lens: Tensor) -> None:
        shape = (lens.size(0), size + 1)
        self.ends = SpeechEnds(*(torch.full((len(lens), embeddings + 1), -1, device=lens.device) for _ in range(2)))
        self.token_ids = torch.zeros(shape, dtype=torch.int64, device=lens.device)
        self.frame, self.log_probs = torch.zeros_like(self.token_ids), torch.zeros(shape, device=lens.device)
        self.count = torch.zeros_like(lens)

    def commit(self, hypotheses: Hypotheses, count: Tensor) -> None:
        """Write the first ``count`` (B,) tokens held back, which all share, and forget them there."""
        self.write(hypotheses.best(), count)
        hypotheses.drop_text(count)

    def write(self, best: Hypotheses, count: Tensor) -> None:
        """Write the first ``count`` (B,) tokens held back by hypotheses (B, 1)."""
        ahead = torch.arange(best.token_ids.size(2), device=count.device)
        column = torch.where(ahead < count.unsqueeze(1), self.count.unsqueeze(1) + ahead, self.token_ids.size(1) - 1)
        rows = torch.arange(count.size(0), device=count.device).unsqueeze(1)
        for name in ("token_ids", "frame", "log_probs"):
            getattr(self, name)[rows, column] = cast(Tensor, getattr(best, name))[:, 0]
        self.count = self.count + count

    def end_speech(self, rows: Tensor, frame: Tensor, first: Tensor) -> None:
        """Speech ended in ``rows`` (B,) bool with the answer to embedding ``frame`` (B,); the step began with ``first`` (B,)."""
        place = torch.where(rows, frame - first, self.ends.frame.size(1) - 1)
        row = torch.arange(len(rows), device=rows.device)
        self.ends.frame[row, place], self.ends.tokens[row, place] = frame, self.count

    def emission(self, cap_hits: Tensor, exhausted: Tensor | None) -> Emission:
        """All that was written."""
        tokens = (self.token_ids[:, :-1], self.frame[:, :-1], self.log_probs[:, :-1])
        ends = SpeechEnds(self.ends.frame[:, :-1], self.ends.tokens[:, :-1])
        return Emission(*tokens, self.count, cap_hits, exhausted, ends)
