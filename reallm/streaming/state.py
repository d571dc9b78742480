"""The algebra of streaming states.

A streaming state is a dataclass whose fields are tensors (B, …), other states, or tuples of states. It is allocated at
full size at the start, so that streams of different ages share one batch, shapes are static and memory is constant for
ever. It is explicit: passed to ``step`` and returned by it. ``step`` may write into the buffers of the state that it was
given, so a caller goes on with the returned state only; ``clone`` keeps a copy.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from reallm.streaming.host import may_look


@dataclasses.dataclass
class StreamingState:
    """Base of all streaming states: every tensor has the rows (streams) B first."""


S = TypeVar("S", bound=StreamingState)


def map_states(function: Callable[..., Tensor], *states: S) -> S:
    """A state whose every tensor is ``function`` of the corresponding tensors of ``states``."""

    def join(*values: Any) -> Any:
        first = values[0]
        if isinstance(first, Tensor):
            return function(*values)
        if isinstance(first, StreamingState):
            return map_states(function, *values)
        if isinstance(first, tuple):
            return tuple(join(*parts) for parts in zip(*values, strict=True))
        raise TypeError(f"a streaming state holds tensors, states and tuples of them, not {type(first).__name__}")

    fields = dataclasses.fields(states[0])
    return type(states[0])(**{f.name: join(*(getattr(s, f.name) for s in states)) for f in fields})


def tensors(state: StreamingState) -> list[Tensor]:
    """All tensors of a state, depth first, in the order of the fields."""
    found: list[Tensor] = []

    def visit(value: Tensor) -> Tensor:
        found.append(value)
        return value

    map_states(visit, state)
    return found


def batch_size(state: StreamingState) -> int:
    """The number of rows B."""
    return tensors(state)[0].size(0)


def clone(state: S) -> S:
    """A copy that shares no memory."""
    return map_states(torch.clone, state)


def stack(states: Sequence[S]) -> S:
    """States of B_1, B_2, … rows as one state of their sum."""
    return map_states(lambda *parts: torch.cat(parts), *states)


def unstack(state: S) -> list[S]:
    """One state a row, each with B = 1, sharing no memory."""
    return [select(state, torch.tensor([row])) for row in range(batch_size(state))]


def select(state: S, rows: Tensor) -> S:
    """The given rows (int64 indices), copied."""
    return map_states(lambda t: t.index_select(0, rows.to(t.device)), state)


def where(mask: Tensor, yes: S, no: S) -> S:
    """Row b of ``yes`` where ``mask`` (B,) is true, else of ``no``; a state of one row stands for all rows."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (max(a.dim(), b.dim()) - 1)), a, b)

    return map_states(choose, yes, no)


def advance(active: Tensor, after: S, before: S) -> S:
    """Row b of ``after`` where ``active`` (B,) is true, else of ``before``, whose buffers may be written into.

    Where the host may look nothing is copied if all rows are active or none is, else the active rows alone.
    """
    if not may_look(active):
        return where(active, after, before)
    index = active.nonzero().squeeze(1)
    if index.numel() == active.numel():
        return after
    return map_states(lambda new, old: old.index_copy_(0, index, new.index_select(0, index)), after, before) if index.numel() else before


def reset(state: S, rows: Tensor, initial: S) -> S:
    """Rows where ``rows`` (B,) bool is true begin anew from ``initial`` (one row, or B); the others stay bit-equal.

    The buffers of ``state`` are written into, those rows alone. ``rows`` may lie on the CPU, so that no accelerator is waited for.
    """
    at = rows.nonzero().squeeze(1).to(tensors(state)[0].device)

    def begin(tensor: Tensor, first: Tensor) -> Tensor:
        tensor[at] = first if first.size(0) == 1 else first[at]
        return tensor

    return map_states(begin, state, initial)
