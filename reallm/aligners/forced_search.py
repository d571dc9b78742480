"""A beam search that is forced to say given tokens, for models whose probabilities depend on all that was said, and when.

Legend: reallm/types.py; K histories a node, N = B · (U + 1) · K slots.

A path says which speech embedding each token answers. Node (t, u): speech embedding t is being answered, u tokens were said. Its slots
are the (at most) K most probable histories that lead there, whose log-probability is that of all their answers, BLANKs included. From
there an answer leads on: BLANK to (t + 1, u), a token to (t, u + 1), or to (t + 1, u + 1) where a speech embedding has one answer. All
histories take one decoder position at a time, so those of a node meet: the positions taken and the tokens said tell the speech
embedding. With a K of all histories of a node the search is exhaustive.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.protocols import PolicyState, ResponseModel
from reallm.streaming.state import StreamingState, tensors


@dataclass
class Histories(StreamingState):
    """What led to each of N slots."""

    decoder: StreamingState
    policy: PolicyState
    embedding: Tensor  # (N,) int64, the speech embedding that is being answered; -1 before the first
    frames: Tensor  # (N, U) int64, the speech embedding that each token answers
    log_probs: Tensor  # (N, U) float64, of each token given all before it


@dataclass
class ForcedPaths:
    """The best path of each row."""

    frames: Tensor  # (B, U) int64, the speech embedding that each token answers; anything after a row's tokens
    log_probs: Tensor  # (B, U) float64, of each token given all before it; likewise
    score: Tensor  # (B,) float64, of all answers, BLANKs included; -inf = no path
    broken: Tensor  # (B,) bool, the decoder gave scores that are NaN
    exhausted: Tensor  # (B,) bool, paths needed more positions than the decoder has room for


@torch.no_grad()
def forced_search(
    model: ResponseModel,
    speech: Tensor,
    lens: Tensor,
    tokens: Tensor,
    token_lens: Tensor,
    first: Tensor,
    last: Tensor,
    beam: int,
) -> ForcedPaths:
    """The most probable of the paths that the search keeps.

    It keeps one of each utterance that has one: what a history may still become depends on its node alone.

    Args:
        model: decoder, and the interleaver whose policy says what it takes in.
        speech: (B, M, D) speech embeddings, lens (B,) of them valid.
        tokens: (B, U) int64, of which token_lens (B,) are to be said; anything after them.
        first, last: (B,) int64, the first and the last speech embedding that may be answered with tokens.
        beam: K.
    """
    batch, most = tokens.shape
    device, blank = speech.device, model.interleaver.blank_id
    nodes = (batch, most + 1, beam)
    row = torch.arange(batch, device=device).view(-1, 1, 1).expand(nodes).flatten()
    said = torch.arange(most + 1, device=device).view(1, -1, 1).expand(nodes).flatten()
    following = F.pad(tokens, (0, 1)).clamp(0, blank - 1).to(device)[row, said]
    lens, token_lens, first, last = (each.to(device)[row] for each in (lens, token_lens, first, last))

    count = row.numel()
    zero = torch.zeros(count, dtype=torch.int64, device=device)
    histories = Histories(
        model.decoder.init_state(count, device, speech.dtype),
        model.interleaver.init_policy(count, device),
        zero - 1,
        zero.unsqueeze(1).repeat(1, most),
        torch.zeros(count, most, dtype=torch.float64, device=device),
    )
    score = torch.full((count,), -torch.inf, dtype=torch.float64, device=device)
    score.view(nodes)[:, 0, 0] = 0
    broken = torch.zeros(batch, dtype=torch.bool, device=device)
    position = 0
    while True:
        policy = histories.policy
        live, ended = score > -torch.inf, policy.wants_audio & (histories.embedding + 1 >= lens)
        active = live & ~ended
        if not bool(active.any()) or 0 < model.capacity <= position:
            break
        position += 1
        hears = active & policy.wants_audio
        histories.embedding = histories.embedding + hears
        heard = torch.where(hears.unsqueeze(1), speech[row, histories.embedding.clamp(min=0)], 0)
        inputs = heard + torch.where((policy.token_ids >= 0).unsqueeze(1), model.decoder.embed(policy.token_ids.clamp(min=0)), 0)
        logits, histories.decoder = model.decoder.step(inputs, active, histories.decoder)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        answers = torch.stack([torch.full_like(following, blank), following], dim=1)
        to_wait, to_speak = (logits.gather(1, answers) - logits.logsumexp(1, keepdim=True)).double().unbind(1)

        # Where a token would not be text, the answer is not looked at: it costs nothing.
        asked = active & model.interleaver.advance(torch.full_like(following, 0 if blank else 1), active, policy)[0]
        broken[row[asked & to_wait.isnan()]] = True
        may_speak = asked & (said < token_lens) & (first <= histories.embedding) & (histories.embedding <= last)
        stay = score + torch.where(asked, to_wait, 0)
        speak = torch.where(may_speak, score + to_speak, -torch.inf)

        # The best of a node: those that stay keep their slots; those from the node of one token less take the slots that are free.
        come = F.pad(speak.view(nodes), (0, 0, 1, 0), value=-torch.inf)[:, :-1]
        order = torch.cat([stay.view(nodes), come], dim=2).argsort(dim=2, descending=True, stable=True)[..., :beam]
        kept = torch.zeros(*nodes[:2], 2 * beam, dtype=torch.bool, device=device).scatter_(2, order, True)
        free, arrivals = ((~kept[..., :beam]).flatten().nonzero()[:, 0], kept[..., beam:].flatten().nonzero()[:, 0])
        score = stay.index_copy(0, free, come.flatten()[arrivals])
        there = score[free] > -torch.inf
        to, origin = free[there], arrivals[there] - beam
        for tensor in tensors(histories):
            tensor[to] = tensor[origin]
        active[to] = True  # nobody rests in a node that others reach
        output = torch.full_like(following, blank)
        output[to] = following[origin]
        histories.frames[to, said[origin]] = histories.embedding[to]
        histories.log_probs[to, said[origin]] = to_speak[origin]
        _, histories.policy = model.interleaver.advance(output, active, histories.policy)

    whole = torch.where(ended & (said == token_lens), score, -torch.inf).view(batch, -1)
    best = whole.argmax(1) + torch.arange(batch, device=device) * whole.size(1)
    score = whole.flatten()[best]
    exhausted = active.view(batch, -1).any(1) & (score == -torch.inf)
    return ForcedPaths(histories.frames[best], histories.log_probs[best], score, broken, exhausted)
