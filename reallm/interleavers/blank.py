"""The interleaving of Speech ReaLLM (Seide et al. 2024, arXiv 2406.09569, section 2): every response ends with BLANK."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.interleavers._due import due_embeddings
from reallm.protocols import PolicyState
from reallm.registry import register
from reallm.streaming.state import where
from reallm.types import Alignment, Interleaved


@dataclass
class BlankPolicyState(PolicyState):
    """Also: whether the answer to the position is not looked at (BLANK was fed)."""

    ignores_output: Tensor  # (B,) bool


@register("interleaver", "blank")
class BlankInterleaver:
    """After each speech embedding the tokens that are due, then BLANK::

        input    s1     s2     y1    y2    s3     s4     y3    …
        target   BLANK  y1     y2    BLANK BLANK  y3     BLANK …

    Args:
        blank_id: the id of BLANK.
    """

    feeds_blank = False
    response_every = 1

    def __init__(self, blank_id: int) -> None:
        self.blank_id = blank_id

    @classmethod
    def tiny(cls) -> Self:
        """Ten tokens and BLANK."""
        return cls(blank_id=10)

    def build(self, alignments: Sequence[Alignment], speech_lens: Tensor, delay: Tensor, period_samples: int) -> Interleaved:
        """See protocols.Interleaver. M speech embeddings and U tokens give M + U positions (2 M + U with BLANK fed)."""
        batch, longest = len(alignments), int(speech_lens.max())
        dues = [self.answered(due_embeddings(a, period_samples, int(d))) for a, d in zip(alignments, delay, strict=True)]
        for row, due in enumerate(dues):
            if due.numel() and int(due[-1]) >= int(speech_lens[row]):
                raise InputError(
                    f"utterance {row} of the batch: its last token is due at speech embedding {int(due[-1]) + 1} of "
                    f"{int(speech_lens[row])}: lengthen the audio by what finish() pushes, or check the alignment"
                )
        tokens = torch.nn.utils.rnn.pad_sequence([a.token_ids for a in alignments], batch_first=True)
        token_lens = torch.tensor([a.token_ids.numel() for a in alignments])
        # Padding is due after everything, so that it is counted before no speech embedding.
        due = torch.nn.utils.rnn.pad_sequence(dues, batch_first=True, padding_value=longest)
        step = 2 if self.feeds_blank else 1
        lens = step * speech_lens.cpu() + token_lens
        length = int(lens.max())

        embedding = torch.arange(longest).expand(batch, -1).contiguous()
        spoken = embedding < speech_lens.cpu().unsqueeze(1)
        written = torch.arange(tokens.size(1)) < token_lens.unsqueeze(1)
        before = torch.searchsorted(due, embedding)  # tokens due before each speech embedding
        audio_row, audio_at = _where(spoken, step * embedding + before)
        token_row, token_at = _where(written, step * due + 1 + torch.arange(tokens.size(1)))

        token_ids = torch.full((batch, length), -1)
        audio_index = torch.full((batch, length), -1)
        targets = torch.full((batch, length), -100)
        token_ids[token_row, token_at] = tokens[written]
        audio_index[audio_row, audio_at] = embedding[spoken]
        targets[audio_row, audio_at] = self.blank_id
        targets[token_row, token_at] = self.blank_id
        targets[token_row, token_at - 1] = tokens[written]
        if self.feeds_blank:
            until = torch.searchsorted(due, embedding, right=True)
            blank_row, blank_at = _where(spoken, step * embedding + 1 + until)
            token_ids[blank_row, blank_at] = self.blank_id
        return Interleaved(token_ids, audio_index, targets, lens)

    def answered(self, due: Tensor) -> Tensor:
        """The speech embedding (from 0) that each token answers, of that at which it is ``due`` (U,)."""
        return due

    def init_policy(self, batch: int, device: torch.device | str = "cpu") -> PolicyState:
        """New streams begin with a speech embedding."""
        return BlankPolicyState(
            token_ids=torch.full((batch,), -1, device=device),
            wants_audio=torch.ones(batch, dtype=torch.bool, device=device),
            ignores_output=torch.zeros(batch, dtype=torch.bool, device=device),
        )

    def advance(self, output: Tensor, active: Tensor, policy: Any) -> tuple[Tensor, PolicyState]:
        """A token is fed back; BLANK asks for the next speech embedding, after it was fed itself if it is to be."""
        if not self.feeds_blank:
            text = active & (output != self.blank_id)
            fed = torch.where(text, output, -1)
            after = torch.where(active, fed, policy.token_ids), torch.where(active, ~text, policy.wants_audio)
            return text, BlankPolicyState(*after, policy.ignores_output)
        ends = (output == self.blank_id) & ~policy.ignores_output
        text = active & ~ends & ~policy.ignores_output
        fed = text | ends
        return text, where(active, BlankPolicyState(torch.where(fed, output, -1), ~fed, ends), policy)

    def due(self, frame: Tensor, durations: Tensor) -> Tensor:
        """Tokens answer the speech embedding at which they are due."""
        return frame


@register("interleaver", "blank_fed")
class BlankFedInterleaver(BlankInterleaver):
    """Likewise, and the BLANK that ends a response is fed back as one more input position, whose answer is not looked at::

        input    s1     BLANK  s2     y1    y2    BLANK  s3     …
        target   BLANK  ·      y1     y2    BLANK ·      BLANK  …

    Args:
        blank_id: the id of BLANK.
    """

    feeds_blank = True


def _where(mask: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Row and position of the entries that ``mask`` (B, …) selects."""
    return mask.nonzero()[:, 0], position[mask]
