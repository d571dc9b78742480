"""Some rows of a streaming state as they were before a step, which is undone where it raises. B rows."""

from typing import TypeVar

import torch
from torch import Tensor

from reallm.streaming.state import StreamingState, map_states, tensors

S = TypeVar("S", bound=StreamingState)


class KeptRows:
    """Memory for the rows that a step may change: those that take part. By contract it leaves the others as they are.

    What a step writes in place differs from component to component, and is known to it alone; so rows are kept whole.

    Args:
        like: a state of B rows, of which nothing but the shapes is used.
    """

    def __init__(self, like: StreamingState) -> None:
        self._values = [torch.empty_like(tensor) for tensor in tensors(like)]
        self._tensors: list[Tensor] = []
        self._rows = torch.zeros(0, dtype=torch.int64)

    def keep(self, state: StreamingState, rows: Tensor) -> None:
        """Copy ``rows`` (N,) int64 of a state, which lie where it does."""
        self._tensors, self._rows = tensors(state), rows
        for tensor, values in zip(self._tensors, self._values, strict=True):
            torch.index_select(tensor, 0, rows, out=values[: rows.numel()])

    def restore(self, state: S) -> S:
        """The state that was given to ``keep``, in the memory that it had then, with those rows as they were."""
        for tensor, values in zip(self._tensors, self._values, strict=True):
            tensor.index_copy_(0, self._rows, values[: self._rows.numel()])
        before = iter(self._tensors)
        return map_states(lambda _: next(before), state)
