"""End of speech, from the probability of BLANK. Legend: reallm/types.py; Q speech embeddings (or encoder frames of CTC) of a step.

An answer is *silent* where it is BLANK alone, and the model gave BLANK, before any penalty, a probability of SILENT at least::

    run(m) = run(m - 1) + 1 where the answer to speech embedding m is silent, else 0
    speech ends at m where run(m) >= least, and something was said since it ended before

that is, where all embeddings of the stream's threshold (``least`` of them) were answered with BLANK and certainty. Where only every k-th
embedding is answered, an answer stands for k of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reallm.streaming.host import may_look
from reallm.streaming.state import StreamingState
from reallm.types import Emission, SpeechEnds

SILENT = 0.9
LOG_SILENT = math.log(SILENT)
NEVER = 1 << 62  # embeddings of silence


def no_ends(batch: int, size: int, device: torch.device) -> SpeechEnds:
    """Of a step of Q = ``size`` speech embeddings in which speech ended nowhere."""
    never = torch.full((batch, size), -1, device=device)
    return SpeechEnds(never, never)


@dataclass
class Silence(StreamingState):
    """How long nothing has been said."""

    least: Tensor  # (B,) int64, embeddings of silence that end speech
    run: Tensor  # (B,) int64, embeddings up to now whose answers were silent
    said: Tensor  # (B,) bool, something was said since speech ended

    @classmethod
    def start(cls, batch: int, device: torch.device | str) -> "Silence":
        """Streams in which speech never ends."""
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(zero + NEVER, zero, zero.bool())

    def begin(self, rows: Tensor, least: Tensor) -> None:
        """Let ``least`` (B,) embeddings of silence end the speech in ``rows`` (B,) bool."""
        self.least = torch.where(rows, least, self.least)

    def is_asked(self) -> bool:
        """Whether some row wants to know when speech ends, as far as the host may look. Without such a row nothing need be heard."""
        return not may_look(self.least) or bool((self.least < NEVER).any())

    def hear(self, silent: Tensor, heard: Tensor, first: Tensor, emission: Emission, every: int = 1) -> tuple[SpeechEnds, "Silence"]:
        """The next ``heard`` (B,) embeddings, from number ``first`` (B,) on.

        Args:
            silent: (B, Q) bool, the answer was silent.
            emission: the tokens that answer them.
            every: only embeddings whose number from 1 is a multiple of it have an answer.

        Returns where speech ended, and the silence after them.
        """
        size, device = silent.size(1), silent.device
        column = torch.arange(size, device=device)
        answered = column < heard.unsqueeze(1)
        if every > 1:
            answered &= (first.unsqueeze(1) + column + 1) % every == 0
        broken = torch.where(answered & ~silent, column, -1).cummax(1).values
        run = column - broken + torch.where(broken < 0, self.run.unsqueeze(1), 0)
        valid = torch.arange(emission.frame.size(1), device=device) < emission.lens.unsqueeze(1)
        place = torch.where(valid, (emission.frame - first.unsqueeze(1)).clamp(min=0), size)  # an answer may go on from the step before
        tokens = torch.zeros(len(silent), size + 1, dtype=torch.int64, device=device).scatter_add_(1, place, valid.long())
        tokens = tokens[:, :size].cumsum(1)
        said = self.said.unsqueeze(1) + tokens
        long = answered & (run >= self.least.unsqueeze(1))
        by_then = torch.where(long, said, 0).cummax(1).values  # what was said by the last silence that was long enough
        ended = long & (said > torch.nn.functional.pad(by_then, (1, 0))[:, :size])
        after = torch.where(heard > 0, run.gather(1, (heard - 1).clamp(min=0).unsqueeze(1)).squeeze(1), self.run)
        ends = SpeechEnds(torch.where(ended, first.unsqueeze(1) + column, -1), tokens)
        return ends, Silence(self.least, after, said[:, -1] > by_then[:, -1])
