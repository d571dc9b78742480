"""The interleaving of SpeechLLM-XL (Jia et al. 2024, arXiv 2410.03752, figure 1): one response per chunk of speech embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from reallm.errors import at_least
from reallm.interleavers.blank import BlankInterleaver
from reallm.protocols import PolicyState
from reallm.registry import register
from reallm.streaming.state import where
from reallm.types import Alignment, Interleaved


@dataclass
class ChunkPolicyState(PolicyState):
    """Also: how much of the chunk was heard."""

    heard: Tensor  # (B,) int64, speech embeddings; all of them = the response is being written


@register("interleaver", "chunk_eos")
class ChunkEosInterleaver(BlankInterleaver):
    """After each chunk of k speech embeddings the tokens that are due in it, ended by an end-of-chunk symbol, here BLANK::

        input    s1     s2     y1    y2    s3     s4     s5    s6   …      k = 2
        target   ·      y1     y2    BLANK ·      BLANK  ·     y3   …

    The end of chunk is not fed back. Tokens wait for the end of their chunk, (k - 1) / 2 token periods on average, and there are k
    times fewer answers that say nothing. The limited attention window of SpeechLLM-XL is the decoder's ``window``: k positions and
    a chunk's tokens for every chunk that is to be seen.

    Args:
        blank_id: the id of BLANK, which ends a response.
        chunk_size: k, speech embeddings a chunk. Where it is the encoder's chunk, whose embeddings come together, waiting costs nothing.

    Raises InputError for a chunk_size below 1.
    """

    def __init__(self, blank_id: int, chunk_size: int = 4) -> None:
        at_least(1, chunk_size=chunk_size)
        super().__init__(blank_id)
        self.chunk_size = self.response_every = chunk_size

    @classmethod
    def tiny(cls) -> Self:
        """Ten tokens and BLANK, chunks of three."""
        return cls(blank_id=10, chunk_size=3)

    def answered(self, due: Tensor) -> Tensor:
        """A token answers the last speech embedding of the chunk in which it is due."""
        return due.div(self.chunk_size, rounding_mode="floor") * self.chunk_size + self.chunk_size - 1

    def build(self, alignments: Sequence[Alignment], speech_lens: Tensor, delay: Tensor, period_samples: int) -> Interleaved:
        """See protocols.Interleaver. M + U positions, of which M / k + U have targets; nothing is due in a last chunk that is not whole."""
        laid_out = super().build(alignments, speech_lens, delay, period_samples)
        heard = laid_out.audio_index + 1  # 0 where a token is fed
        laid_out.targets[heard % self.chunk_size != 0] = -100
        return laid_out

    def init_policy(self, batch: int, device: torch.device | str = "cpu") -> PolicyState:
        """New streams begin with the first speech embedding of a chunk."""
        return ChunkPolicyState(
            token_ids=torch.full((batch,), -1, device=device),
            wants_audio=torch.ones(batch, dtype=torch.bool, device=device),
            heard=torch.zeros(batch, dtype=torch.int64, device=device),
        )

    def advance(self, output: Tensor, active: Tensor, policy: Any) -> tuple[Tensor, PolicyState]:
        """Answers before the end of a chunk are not looked at; then tokens are fed back, until BLANK asks for the next chunk."""
        heard = policy.heard + policy.wants_audio
        asked = heard == self.chunk_size
        ends = asked & (output == self.blank_id)
        text = active & asked & ~ends
        after = ChunkPolicyState(torch.where(text, output, -1), ~text, torch.where(ends, 0, heard))
        return text, where(active, after, policy)

    def due(self, frame: Tensor, durations: Tensor) -> Tensor:
        """The n tokens of a response are taken to be due at even distances in its chunk: see protocols.Interleaver."""
        index = torch.arange(frame.size(-1), device=frame.device).expand_as(frame)
        first = _since_change(frame, index)
        last = frame.size(-1) - 1 - _since_change(frame.flip(-1), index).flip(-1)
        # The j-th of n, from 0: ceil(k (j + 1/2) / n) speech embeddings into the chunk, in integers.
        size = 2 * (last - first + 1)
        into = (self.chunk_size * (2 * (index - first) + 1) + size - 1).div(size, rounding_mode="floor")
        return frame - self.chunk_size + into


def _since_change(frame: Tensor, index: Tensor) -> Tensor:
    """Where the run of equal frames that holds each entry of ``frame`` (…, K) begins."""
    changes = torch.nn.functional.pad(frame.diff(dim=-1) != 0, (1, 0))
    return torch.where(changes, index, 0).cummax(-1).values
