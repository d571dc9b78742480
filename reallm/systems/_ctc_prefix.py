"""Joint CTC/attention decoding (Watanabe et al. 2017, section 3.2): CTC prefix scores in a search over texts.

R = B · K rows, as in _text_search.py. The recursions over frames of Algorithm 2 there are linear in probabilities, so they are
cumulative sums here, in float64, where what is subtracted and added again costs nothing that matters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.streaming.context import length_mask
from reallm.streaming.state import StreamingState

S = TypeVar("S", bound=StreamingState)
CANDIDATES = 2  # that CTC is asked about, for each hypothesis of the beam, as in SpeechBrain (scorer_beam_scale)
NEVER = -float("inf")


@dataclass
class CTCPrefixes(StreamingState):
    """The prefixes that a row may have gone on to, C of them, of which its next token tells one."""

    token_ids: Tensor  # (R, C) int64: the last token of each
    forward: Tensor  # (R, C, 2, N + 1): log-probability that the first n frames are the prefix, ending in its token or in BLANK
    log_probs: Tensor  # (R, C): that a text begins with the prefix


class CTCPrefixScorer:
    """What CTC says of the texts of a batch.

    Args:
        log_probs: (B, N, V) of a CTC layer, BLANK last.
        lens: (B,) frames.
    """

    def __init__(self, log_probs: Tensor, lens: Tensor) -> None:
        self.log_probs, self.lens = log_probs.double(), lens
        self.blank_id = log_probs.size(2) - 1
        self.blank = F.pad(self.log_probs[:, :, self.blank_id].cumsum(1), (1, 0))  # (B, N + 1): of n times BLANK

    def init_state(self, candidates: int) -> CTCPrefixes:
        """The empty prefixes of B rows, each with room for ``candidates``; the token before them is BLANK's id."""
        rows = (self.blank.size(0), candidates)
        forward = torch.stack([torch.full_like(self.blank, NEVER), self.blank], dim=1)
        return CTCPrefixes(
            torch.full(rows, self.blank_id, device=self.blank.device),
            forward.unsqueeze(1).repeat(1, candidates, 1, 1),
            self.blank.new_zeros(rows),
        )

    def step(self, token_ids: Tensor, candidates: Tensor, state: CTCPrefixes) -> tuple[Tensor, Tensor, CTCPrefixes]:
        """The last token of each row (R,) and what may follow, candidates (R, C) without BLANK.

        Returns log-probabilities, given the prefix so far, of the candidates (R, C) and of the text's end (R,), and the state.
        """
        row = torch.arange(token_ids.size(0), device=token_ids.device)
        utterance = row // (row.size(0) // self.lens.size(0))
        chosen = (state.token_ids == token_ids.unsqueeze(1)).int().argmax(1)
        before, begun = state.forward[row, chosen], state.log_probs[row, chosen]
        whole = before.logsumexp(1)  # (R, N + 1)

        # A token that is said twice needs a BLANK in between.
        again = (candidates == token_ids.unsqueeze(1)).unsqueeze(2)
        opens = torch.where(again, before[:, 1:], whole.unsqueeze(1))  # (R, C, N + 1)
        frame = torch.arange(self.log_probs.size(1), device=row.device)
        said = self.log_probs[utterance.view(-1, 1, 1), frame, candidates.unsqueeze(2)]  # (R, C, N), without a copy for each hypothesis
        blank = self.blank[utterance].unsqueeze(1)
        token = F.pad(said.cumsum(2), (1, 0))
        # ends[n] = logaddexp(ends[n - 1], opens[n - 1]) + said[n], and alike in BLANKs from the ends on
        ends = token + F.pad((opens - token).logcumsumexp(2)[:, :, :-1], (1, 0), value=NEVER)
        blanks = blank + F.pad((ends - blank).logcumsumexp(2)[:, :, :-1], (1, 0), value=NEVER)

        heard = length_mask(self.lens, said.size(2))[utterance].unsqueeze(1)
        log_probs = (opens[:, :, :-1] + said).masked_fill(~heard, NEVER).logsumexp(2)
        end = whole.gather(1, self.lens[utterance].unsqueeze(1)).squeeze(1)
        prefixes = CTCPrefixes(candidates, torch.stack([ends, blanks], dim=2), log_probs)
        return log_probs - begun.unsqueeze(1), end - begun, prefixes


@dataclass
class JointState(StreamingState, Generic[S]):
    """What the decoder and CTC remember of the texts so far."""

    text: S
    prefixes: CTCPrefixes


def joint_search(
    step: Callable[[Tensor, Tensor, S], tuple[Tensor, S]], state: S, log_probs: Tensor, lens: Tensor, weight: float, beam: int
) -> tuple[Callable[[Tensor, Tensor, JointState[S]], tuple[Tensor, JointState[S]]], JointState[S]]:
    """What a search steps through, and its state: (1 - weight) · log-probability of the decoder + weight · that of CTC.

    CTC is asked about the tokens that the decoder thinks likeliest, some for each hypothesis of the beam; others are not said.

    Args:
        step, state: those of the decoder alone, see :func:`reallm.systems._text_search.search_texts`.
        log_probs, lens: of a CTC layer, as in :class:`CTCPrefixScorer`; BLANK is the id that ends a text.
        weight: above 0, below 1.
        beam: K.
    """
    end_id = log_probs.size(2) - 1
    scorer, candidates = CTCPrefixScorer(log_probs, lens), min(CANDIDATES * beam, end_id)

    def joint_step(token_ids: Tensor, active: Tensor, state: JointState[S]) -> tuple[Tensor, JointState[S]]:
        of_decoder, text = step(token_ids, active, state.text)
        likely = of_decoder[:, :end_id].topk(candidates).indices
        of_ctc, end, prefixes = scorer.step(token_ids, likely, state.prefixes)
        asked = F.pad(likely, (0, 1), value=end_id)
        mixed = (1 - weight) * of_decoder.gather(1, asked) + weight * torch.cat([of_ctc, end.unsqueeze(1)], dim=1).to(of_decoder.dtype)
        return torch.full_like(of_decoder, NEVER).scatter(1, asked, mixed), JointState(text, prefixes)

    return joint_step, JointState(state, scorer.init_state(candidates))
