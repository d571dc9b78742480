"""Beam search over texts of whole utterances. Legend: reallm/types.py; B utterances, K hypotheses of each, R = B · K.

A text is complete with the end token. Its score is the log-probability of all its tokens, the end included, divided by
their number to the power of ``length_power``: 0 prefers short texts, 1 compares the mean of a token.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.streaming.state import StreamingState, select
from reallm.types import Emission

S = TypeVar("S", bound=StreamingState)
NEVER = -float("inf")


def check_search(beam: int, length_power: float) -> None:
    """Raises InputError for a beam below 1 or a negative power."""
    if beam < 1:
        raise InputError(f"beam {beam}: at least one hypothesis is kept")
    if not length_power >= 0:
        raise InputError(f"length_power {length_power}: give 0 (sum of log-probabilities) or more (1: mean of a token)")


def search_texts(
    step: Callable[[Tensor, Tensor, S], tuple[Tensor, S]], state: S, limits: Tensor, end_id: int, beam: int, length_power: float
) -> Emission:
    """The text of the best score that is found for each utterance.

    In each round the best K candidates of an utterance, by log-probability, are kept; those that end leave the beam, which shrinks by
    them (Sutskever et al. 2014, section 3.2). A search ends when the beam is empty, or nothing in it can become better
    than the best text. K = 1 is greedy search; a beam with room for every text finds the best one.

    Args:
        step: token_ids (R,), active (R,) bool, state of R rows → log-probabilities (R, V), or what stands for them: nothing above 0,
            -inf for what is not to be said; and the state. The hypotheses of an utterance lie side by side. It may write into the
            state. Nothing depends on what it gives for rows that are not active.
        state: of B rows, before the first token, which is ``end_id``.
        limits: (B,) int64, the most tokens of a text; one that would go on is ended there and counted in ``cap_hits``.
        end_id: begins and ends a text.
        beam: K.
        length_power: see above.

    Returns an emission whose frames are all 0. Utterances whose scores are NaN are ``lost``.
    """
    rows, device = limits.size(0), limits.device
    longest = int(limits.max()) if rows else 0
    first_row = torch.arange(rows, device=device).unsqueeze(1) * beam
    state = select(state, torch.arange(rows, device=device).repeat_interleave(beam)) if beam > 1 else state
    scores = torch.full((rows, beam), NEVER, device=device, dtype=torch.float64)
    scores[:, 0] = 0.0
    token_ids = torch.zeros(rows, beam, longest + 1, dtype=torch.int64, device=device)
    log_probs = torch.zeros(rows, beam, longest + 1, device=device)
    finished = torch.zeros(rows, dtype=torch.int64, device=device)
    best = Emission(token_ids[:, 0, :longest].clone(), token_ids[:, 0, :longest].clone(), log_probs[:, 0, :longest], finished, finished)
    best_score = torch.full_like(scores[:, 0], NEVER)
    last = torch.full((rows, beam), end_id, device=device)
    each = torch.arange(rows, device=device)

    for length in range(longest + 1):
        active = scores > NEVER
        following, state = step(last.flatten(), active.flatten(), state)
        following = following.float().unflatten(0, (rows, beam))  # (B, K, V)
        size = following.size(2)
        at_limit = (length >= limits).view(-1, 1, 1)
        cut = (following.argmax(2) != end_id) & at_limit[:, 0]
        other = torch.arange(size, device=device) != end_id
        allowed = following.double().masked_fill(at_limit & other, NEVER)
        candidates = torch.where(active.unsqueeze(2), scores.unsqueeze(2) + allowed, NEVER)
        top, index = candidates.flatten(1).topk(beam)
        parent, token = index // size, index % size
        room = torch.arange(beam, device=device) < (beam - finished).unsqueeze(1)
        kept = room & (top > NEVER)
        ends = kept & (token == end_id)
        added = following.flatten(1).gather(1, index)

        score, winner = torch.where(ends, top / (length + 1) ** length_power, NEVER).max(1)
        better = score > best_score
        of = parent[each, winner]
        best.token_ids = torch.where(better.unsqueeze(1), token_ids[each, of, :longest], best.token_ids)
        best.log_probs = torch.where(better.unsqueeze(1), log_probs[each, of, :longest], best.log_probs)
        best.lens = torch.where(better, length, best.lens)
        best.cap_hits = torch.where(better, cut[each, of].long(), best.cap_hits)
        best_score = torch.where(better, score, best_score)
        finished = finished + ends.sum(1)

        live = kept & ~ends
        scores = torch.where(live, top, NEVER)
        # A score only falls as a text grows; divided by the largest length it is as good as it can become.
        hopeless = scores.max(1).values / (limits + 1).double() ** length_power <= best_score
        scores = scores.masked_fill(hopeless.unsqueeze(1), NEVER)
        if not bool((scores > NEVER).any()):
            break
        copy = parent.unsqueeze(2).expand_as(token_ids)
        token_ids, log_probs = token_ids.gather(1, copy), log_probs.gather(1, copy)
        token_ids[:, :, length], log_probs[:, :, length] = token, added
        last = token
        origin = (first_row + parent).flatten()
        if not torch.equal(origin, torch.arange(rows * beam, device=device)):
            state = select(state, origin)
    best.lost = best_score == NEVER  # a text ends at its limit at the latest, unless no score is a number
    return best


def spread(found: Emission, frames: Tensor) -> Emission:
    """The emission with its tokens spread evenly over the utterances' ``frames`` (B,): where they are is not known."""
    order = torch.arange(found.token_ids.size(1), device=frames.device)
    middle = (2 * order + 1) * frames.unsqueeze(1) // (2 * found.lens.clamp(min=1)).unsqueeze(1)
    found.frame = middle.clamp(max=(frames - 1).clamp(min=0).unsqueeze(1))
    return found
