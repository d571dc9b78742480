"""The interleaving of delayed-streams modelling (Zeghidour et al. 2025, arXiv 2509.08753): text is a stream beside the audio, and later."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.interleavers._due import due_embeddings
from reallm.protocols import PolicyState
from reallm.registry import register
from reallm.streaming.state import where
from reallm.types import Alignment, Interleaved


@register("interleaver", "delayed_stream")
class DelayedStreamInterleaver:
    """One decoder position per speech embedding, to which the answer before it is added; an answer is one token, or padding (BLANK)::

        input    s1     s2     s3     s4     s5     …
               + BLANK  BLANK  y1     y2     BLANK
        target   BLANK  y1     y2     BLANK  y3     …

    A stream costs as many positions as it has speech embeddings, whatever is said. As a position has one token, tokens that are due at
    the same speech embedding queue up: each takes the first free place from when it is due on. With more than one token a token
    period the queue grows: take a shorter token period, or longer tokens.

    Args:
        blank_id: the id of BLANK, which pads the text.
    """

    feeds_blank = True
    response_every = 1

    def __init__(self, blank_id: int) -> None:
        self.blank_id = blank_id

    @classmethod
    def tiny(cls) -> Self:
        """Ten tokens and BLANK."""
        return cls(blank_id=10)

    def build(self, alignments: Sequence[Alignment], speech_lens: Tensor, delay: Tensor, period_samples: int) -> Interleaved:
        """See protocols.Interleaver. M speech embeddings give M positions."""
        lens = speech_lens.cpu()
        position = torch.arange(int(lens.max())).expand(len(alignments), -1)
        targets = torch.full(position.shape, self.blank_id)
        for row, (alignment, late) in enumerate(zip(alignments, delay, strict=True)):
            place = queued(due_embeddings(alignment, period_samples, int(late)))
            if place.numel() and int(place[-1]) >= int(lens[row]):
                raise InputError(
                    f"utterance {row} of the batch: its last token has its place at speech embedding {int(place[-1]) + 1} of "
                    f"{int(lens[row])}, one token each: lengthen the audio by what finish() pushes (flush_periods), shorten the token "
                    "period, or check the alignment"
                )
            targets[row, place] = alignment.token_ids
        token_ids = torch.nn.functional.pad(targets, (1, 0), value=self.blank_id)[:, :-1]
        beyond = position >= lens.unsqueeze(1)
        return Interleaved(
            token_ids.masked_fill(beyond, -1), position.masked_fill(beyond, -1), targets.masked_fill(beyond, -100), lens.clone()
        )

    def init_policy(self, batch: int, device: torch.device | str = "cpu") -> PolicyState:
        """New streams begin with a speech embedding and padding."""
        return PolicyState(
            token_ids=torch.full((batch,), self.blank_id, device=device),
            wants_audio=torch.ones(batch, dtype=torch.bool, device=device),
        )

    def advance(self, output: Tensor, active: Tensor, policy: PolicyState) -> tuple[Tensor, PolicyState]:
        """The answer is fed with the next speech embedding, whatever it is."""
        after = PolicyState(output, policy.wants_audio)
        return active & (output != self.blank_id), where(active, after, policy)

    def due(self, frame: Tensor, durations: Tensor) -> Tensor:
        """A token that comes right after another may have waited for its place: it was due its duration after that one at the latest.

        See protocols.Interleaver. Tokens of earlier steps are not known here: the first one of a step is taken as not having waited.
        """
        spoken = durations.cumsum(-1)
        slack = frame - spoken
        # e_j = min(frame_j, e_(j-1) + duration_j) in each run of consecutive frames is a running minimum: runs are moved apart for it.
        run = torch.nn.functional.pad(frame.diff(dim=-1) != 1, (1, 0)).cumsum(-1)
        apart = run * (slack.amax() - slack.amin() + 1)
        return torch.minimum((slack - apart).cummin(-1).values + apart + spoken, frame)


def queued(due: Tensor) -> Tensor:
    """(U,) places, one a token and from when it is ``due`` (U,) on, in order: max(due_u, place_(u-1) + 1)."""
    order = torch.arange(due.numel())
    return (due - order).cummax(0).values + order if due.numel() else due
