"""An emission as numbers of the host. Legend: reallm/types.py."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reallm.protocols import System
from reallm.types import Emission

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class SpokenToken(NamedTuple):
    """One token of an emission."""

    token_id: int
    log_prob: float
    start_samples: int
    end_samples: int


class Rows:
    """An emission that was read back from its device in one piece, so that the host waits for it once.

    Args:
        emission: of B rows.
        system: tells when tokens were spoken.
        tail: token ids (B, P) that a search has not committed to, and how many of them a row has (B,).
    """

    def __init__(self, emission: Emission, system: System, tail: tuple[Tensor, Tensor] | None = None) -> None:
        start, end = system.token_span(emission.token_ids, emission.frame)
        exhausted = torch.zeros_like(emission.lens) if emission.exhausted is None else emission.exhausted
        tail_ids, tail_lens = (emission.token_ids[:, :0], torch.zeros_like(emission.lens)) if tail is None else tail
        log_probs = emission.log_probs.double().view(torch.int64)
        rows = [emission.lens, emission.cap_hits, exhausted, tail_lens]
        columns = [row.unsqueeze(1) for row in rows] + [emission.token_ids, start, end, log_probs, tail_ids]
        packed = torch.cat([column.long() for column in columns], dim=1).cpu().numpy()
        tokens = emission.token_ids.size(1)
        self.lens, self.cap_hits, self.tail_lens = packed[:, 0], packed[:, 1], packed[:, 3]
        self.exhausted: Mask = packed[:, 2] != 0
        self._token_ids, self._start, self._end, log_prob_bits = (packed[:, 4 + n * tokens : 4 + (n + 1) * tokens] for n in range(4))
        self._log_probs = np.ascontiguousarray(log_prob_bits).view(np.float64)
        spoken = np.arange(tokens) < self.lens[:, None]
        self.is_nan: Mask = np.any(np.isnan(self._log_probs) & spoken, axis=1)  # (B,), a token's score is no number
        self.tail_ids = packed[:, 4 + 4 * tokens :]  # (B, P)

    def tokens(self, row: int) -> list[SpokenToken]:
        """The tokens of a row, in order."""
        count = int(self.lens[row])
        if count == 0:
            return []
        found = slice(0, count)
        columns = (values[row, found].tolist() for values in (self._token_ids, self._log_probs, self._start, self._end))
        return [SpokenToken(*token) for token in zip(*columns, strict=True)]
