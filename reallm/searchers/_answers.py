"""What greedy search answers in one step, put together when it is over. Legend: reallm/types.py; P decoder positions, Q speech embeddings.

At each position a few numbers a row are kept, and nothing is computed of them: what becomes of them is a few operators a step, not a
position.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reallm.types import Emission


class Flags(NamedTuple):
    """Of one position, each (B,) bool; of all, (B, P)."""

    active: Tensor  # the row had an input
    hears: Tensor  # it was a speech embedding
    certain: Tensor  # BLANK was all but certain
    full: Tensor  # no more tokens were allowed
    text: Tensor  # the answer is a token of the text


class Position(NamedTuple):
    """What is kept of one position."""

    flags: Flags
    chosen: Tensor  # (B,) int64, the answer
    output: Tensor  # (B,) int64, what became of it
    log_prob: Tensor  # (B, 1), of that


class Answers:
    """Those of the positions of one step, in order.

    Args:
        positions: P of them, 0 where all rows rest.
        frame: (B,) int64, the speech embedding that each row answered before.
        blank_id: of the interleaver.
    """

    def __init__(self, positions: list[Position], frame: Tensor, blank_id: int) -> None:
        self._before, self._blank_id, self._is_empty = frame, blank_id, not positions
        if positions:
            of_all = len(positions), len(Flags._fields), len(frame)
            flags = torch.cat([flag for position in positions for flag in position.flags]).view(of_all)
            tokens = torch.cat([token for position in positions for token in position[1:3]]).view(of_all[0], 2, of_all[2])
            self._flags = Flags(*flags.permute(1, 2, 0).unbind())
            self._chosen, self._output = tokens.permute(1, 2, 0).unbind()  # (B, P), likewise below
            self._log_probs = torch.cat([position.log_prob for position in positions], dim=1)
            self._heard = self._flags.hears.cumsum(1)

    @property
    def heard(self) -> Tensor:
        """(B,) int64, how many speech embeddings were heard."""
        return torch.zeros_like(self._before) if self._is_empty else self._heard[:, -1]

    def emission(self, capacity: int) -> Emission:
        """The tokens that were said, of which there is room for ``capacity``, K."""
        rows = len(self._before)
        if self._is_empty:
            none, zero = self._before.new_zeros(rows, capacity), torch.zeros_like(self._before)
            return Emission(none, none, none.float(), zero, zero)
        flags, said = self._flags, self._flags.text.cumsum(1)
        # One column more than can be filled: what is not to be put out is written there.
        column = torch.where(flags.text, said - 1, capacity)
        values = self._output, self._before.unsqueeze(1) + self._heard, self._log_probs
        columns = [value.new_zeros(rows, capacity + 1).scatter_(1, column, value)[:, :capacity] for value in values]
        cap_hits = (flags.active & flags.full & (self._chosen != self._blank_id)).sum(1)
        return Emission(columns[0], columns[1], columns[2], said[:, -1], cap_hits)

    def silent(self, most: int) -> Tensor:
        """(B, Q) bool, which speech embeddings were answered with certain silence; ``most``, Q, is at least as many as were heard."""
        if self._is_empty:
            return torch.zeros_like(self._before, dtype=torch.bool).unsqueeze(1).expand(-1, most)
        column = torch.where(self._flags.hears, self._heard - 1, most)
        silent = self._flags.certain & (self._output == self._blank_id)
        return silent.new_zeros(len(silent), most + 1).scatter_(1, column, silent)[:, :most]
