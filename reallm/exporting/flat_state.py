"""Streaming states as named tensors: inputs and outputs of an exported program."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from reallm.streaming.state import StreamingState, map_states


class FlatState:
    """The tensors of a state by the names of its fields, such as ``acoustic.encoder.layers.0.attention.keys``.

    Tensors without elements, such as a context of no frames, have no name: ``restored`` makes them.

    Args:
        initial: the state of one new stream.
    """

    def __init__(self, initial: StreamingState) -> None:
        self._template = initial
        self.initial = {name: tensor for name, tensor in _named(initial) if tensor.numel()}

    def named(self, state: StreamingState) -> dict[str, Tensor]:
        """The tensors (B, …) of a state of that kind."""
        return {name: tensor for name, tensor in _named(state) if name in self.initial}

    def restored(self, named: Mapping[str, Tensor], batch: int) -> Any:
        """The state of ``batch`` rows, of copies: a step may write into it."""
        every = _named(self._template)
        found = iter([named[name].clone() if name in self.initial else one.new_zeros(batch, *one.shape[1:]) for name, one in every])
        return map_states(lambda _: next(found), self._template)


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """In the order in which ``map_states`` goes through them."""
    if isinstance(value, Tensor):
        yield name, value
        return
    parts = enumerate(value) if isinstance(value, tuple) else ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    for key, part in parts:
        yield from _named(part, f"{name}.{key}" if name else str(key))
