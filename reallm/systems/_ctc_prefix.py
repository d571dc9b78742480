"""CTC in a search over texts (Watanabe et al. 2017, section 3.2): how likely a text begins so. R = B · K rows, as in _text_search.py."""

from dataclasses import dataclass

import torch
from speechbrain.decoders.ctc import CTCPrefixScore
from torch import Tensor

from reallm.streaming.state import StreamingState


@dataclass
class CTCPrefixes(StreamingState):
    """The prefixes that a row may have gone on to, C of them, of which its next token tells one."""

    token_ids: Tensor  # (R, C) int64: the last token of each
    forward: Tensor  # (R, C, 2, N): log-probability of the prefix in the first n + 1 frames, the last of which is its token or BLANK
    log_probs: Tensor  # (R, C): that a text begins with the prefix


class CTCPrefixScorer:
    """SpeechBrain's prefix scores of a batch, in float32, each for the few tokens that the decoder thinks likely.

    Args:
        log_probs: (B, N, V) of a CTC layer, BLANK last; N is at least 1.
        lens: (B,) frames; of an utterance without any, the first counts.
    """

    def __init__(self, log_probs: Tensor, lens: Tensor) -> None:
        self.blank_id = log_probs.size(2) - 1
        # There BLANK, which is the end of a text too, comes first: after an utterance's end it is certain.
        self.scorer = CTCPrefixScore(log_probs.float().roll(1, dims=2), lens.clamp(min=1), blank_index=0, eos_index=0)

    def init_state(self, candidates: int) -> CTCPrefixes:
        """The empty prefixes of B rows, each with room for ``candidates``; the token before them is BLANK's id."""
        blank = self.scorer.x[1, :, :, 0].cumsum(0).transpose(0, 1)  # (B, N)
        forward = torch.stack([torch.full_like(blank, self.scorer.minus_inf), blank], dim=1)
        rows = (blank.size(0), candidates)
        return CTCPrefixes(
            torch.full(rows, self.blank_id, device=blank.device),
            forward.unsqueeze(1).repeat(1, candidates, 1, 1),
            blank.new_zeros(rows),
        )

    def step(self, token_ids: Tensor, candidates: Tensor, state: CTCPrefixes) -> tuple[Tensor, CTCPrefixes]:
        """The last token of each row (R,) and what may follow, candidates (R, C) without BLANK → log-probabilities (R, V), state.

        Of a candidate, and of the end (in BLANK's place), given the prefix; of others they are very low.
        """
        chosen = (state.token_ids == token_ids.unsqueeze(1)).int().argmax(1)
        row = torch.arange(token_ids.size(0), device=token_ids.device)
        before = (state.forward[row, chosen].permute(2, 1, 0), state.log_probs[row, chosen].unsqueeze(1))
        labels = (token_ids + 1) % (self.blank_id + 1)
        scores, (forward, log_probs, _) = self.scorer.forward_step(labels, before, candidates + 1)
        return scores.roll(-1, dims=1), CTCPrefixes(candidates, forward.permute(2, 3, 1, 0), log_probs.gather(1, candidates + 1))
