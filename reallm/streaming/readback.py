"""An emission as numbers of the host. Legend: reallm/types.py."""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from reallm.protocols import System
from reallm.streaming.sample_ring import Integers, Mask
from reallm.types import Emission


class SpokenToken(NamedTuple):
    """One token of an emission."""

    token_id: int
    log_prob: float
    start_samples: int
    end_samples: int


class Said(NamedTuple):
    """What came out in one row, which keeps nothing of the others. N tokens."""

    numbers: Integers  # (4, N): token ids, starts, ends, and log-probabilities, float64 in the bits of int64
    speech_ends: list[tuple[int, int]]  # after how many of the tokens, and samples of the audio
    cap_hits: int

    def tokens(self) -> list[SpokenToken]:
        """In order."""
        if not self.numbers.size:
            return []
        token_ids, start, end, bits = self.numbers
        columns = (token_ids, bits.view(np.float64), start, end)
        return [SpokenToken(*token) for token in zip(*(column.tolist() for column in columns), strict=True)]


class Pending(NamedTuple):
    """What the best hypothesis of each row says beyond what was put out."""

    token_ids: Tensor  # (B, P)
    lens: Tensor  # (B,) int64
    lost: Tensor  # (B,) bool, the row has no hypothesis any more


def pack(emission: Emission, system: System, pending: Pending | None = None) -> tuple[Tensor, int, int]:
    """An emission of B rows in one tensor of its device, which Rows.unpacked takes: (B, …) int64, columns of tokens, and of speech ends."""
    start, end = system.token_span(emission.token_ids, emission.frame)
    nothing, none = torch.zeros_like(emission.lens), emission.token_ids[:, :0]
    exhausted, goes_on, full = (nothing if mask is None else mask for mask in (emission.exhausted, emission.pending, emission.full))
    tail_ids, tail_lens, lost = (none, nothing, nothing if emission.lost is None else emission.lost) if pending is None else pending
    log_probs = emission.log_probs.double().view(torch.int64)
    rows = [emission.lens, emission.cap_hits, exhausted, tail_lens, lost, goes_on, full]
    ends = emission.speech_ends
    ended = [none, none] if ends is None else [(ends.frame + 1) * system.period_samples, ends.tokens]
    columns = [row.unsqueeze(1) for row in rows] + [emission.token_ids, start, end, log_probs, *ended, tail_ids]
    return torch.cat([column.long() for column in columns], dim=1), emission.token_ids.size(1), ended[0].size(1)


class Rows:
    """An emission that was read back from its device in one piece, so that the host waits for it once.

    Args:
        emission: of B rows.
        system: tells when tokens were spoken.
        pending: what a search has not committed to; None = nothing.
    """

    def __init__(self, emission: Emission, system: System, pending: Pending | None = None) -> None:
        packed, tokens, most = pack(emission, system, pending)
        self._unpack(packed.cpu().numpy(), tokens, most)

    @classmethod
    def unpacked(cls, packed: Integers, tokens: int, most: int) -> Self:
        """What ``pack`` gave, on the host."""
        rows = cls.__new__(cls)
        rows._unpack(packed, tokens, most)
        return rows

    def _unpack(self, packed: Integers, tokens: int, most: int) -> None:
        self.lens, self.cap_hits, self.tail_lens = packed[:, 0], packed[:, 1], packed[:, 3]
        self.exhausted: Mask = packed[:, 2] != 0
        self.pending: Mask = packed[:, 5] != 0  # see Emission
        self.full: Mask = packed[:, 6] != 0  # likewise
        self._numbers = packed[:, 7 : 7 + 4 * tokens].reshape(len(packed), 4, tokens)
        log_probs = np.ascontiguousarray(self._numbers[:, 3]).view(np.float64)
        spoken = np.arange(tokens) < self.lens[:, None]
        # (B,), scores of the row are no numbers any more
        self.is_nan: Mask = np.any(np.isnan(log_probs) & spoken, axis=1) | (packed[:, 4] != 0)
        after = 7 + 4 * tokens
        self._speech_ends, self._said_before = packed[:, after : after + most], packed[:, after + most : after + 2 * most]
        # (B,), speech ended in the row
        self.has_ends: Mask = np.any(self._speech_ends > 0, axis=1)
        self.tail_ids = packed[:, after + 2 * most :]  # (B, P)

    def said(self, row: int) -> Said:
        """What came out in a row."""
        ends = self.speech_ends(row) if self.has_ends[row] else []
        return Said(self._numbers[row, :, : self.lens[row]].copy(), ends, int(self.cap_hits[row]))

    def speech_ends(self, row: int) -> list[tuple[int, int]]:
        """Where speech ended: after how many tokens of the row, and samples of its audio."""
        found = np.flatnonzero(self._speech_ends[row] > 0)
        return list(zip(self._said_before[row, found].tolist(), self._speech_ends[row, found].tolist(), strict=True))

    def tail(self, row: int) -> list[int]:
        """The tokens that a search has not committed to."""
        found: list[int] = self.tail_ids[row, : self.tail_lens[row]].tolist()
        return found

    def tokens(self, row: int) -> list[SpokenToken]:
        """The tokens of a row, in order."""
        return self.said(row).tokens()
