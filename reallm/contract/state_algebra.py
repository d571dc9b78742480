"""The state of what puts out tokens, searchers and systems: rows may be stacked, parted and reset."""

from collections.abc import Callable
from typing import Any

import torch

from reallm.contract.emissions import collect, require_same_answers
from reallm.contract.requirement import require, require_equal
from reallm.streaming.state import clone, reset, stack, tensors, unstack
from reallm.types import Emission

Push = Callable[[int, Any], tuple[Emission, Any]]
"""Chunk number n, the same one for every row of the state that is given, to what it brings out and the state after it."""


def require_state_algebra(start: Any, push: Push) -> None:
    """The state keeps its shapes; rows of different age share a batch; a reset row is new and leaves the others bit-equal.

    Args:
        start: the state of one new row; it is not changed.
        push: pushes chunk 0, then chunk 1.
    """
    _, aged = push(0, clone(start))
    before, after = ([(t.shape, t.dtype) for t in tensors(s)] for s in (start, aged))
    require(before == after, f"the state changes its shapes or types: {before} became {after}")
    together = stack([clone(start), clone(aged), clone(aged)])
    for apart, single in zip(unstack(together), (start, aged, aged), strict=True):
        for got, expected in zip(tensors(apart), tensors(single), strict=True):
            require_equal(got, expected, "a state after stack and unstack")
    fresh = reset(clone(together), torch.tensor([False, False, True]), start)
    kept, renewed = collect(push(1, together)[0]), collect(push(1, fresh)[0])
    require(renewed[:2] == kept[:2], "rows 0 and 1 answer otherwise after row 2 was reset")
    require_same_answers(renewed[2], collect(push(1, clone(start))[0])[0], "a row that was reset")
    require_same_answers(kept[1], collect(push(1, clone(aged))[0])[0], "an aged row beside a new one")
