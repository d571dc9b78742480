"""How many operators a step asks for: of a small model they are what a step takes, whatever its streams up to eight."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reallm.bundle import load_shared, published
from reallm.streaming.constants import constant
from reallm.streaming.engine import Engine
from tests.dummies.engine_systems import noise

# What they are, and some room for another version of torch: to be lowered with them, and to be raised with a reason alone.
MOST = {"frontend": 34, "encoder": 250, "adapter": 20, "decoder": 480, "search": 215}


class Operators(TorchDispatchMode):
    """Counts what is asked for, by the innermost of the parts that are running."""

    def __init__(self, parts: dict[str, tuple[Any, str]], patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts, self.calls, self._running = Counter[str](), Counter[str](), list[str]()
        for name, (owner, method) in parts.items():
            patch.setattr(owner, method, self._noting(name, getattr(owner, method)))

    def _noting(self, name: str, method: Any) -> Any:
        def noted(*given: Any, **named: Any) -> Any:
            self.calls[name] += 1
            self._running.append(name)
            try:
                return method(*given, **named)
            finally:
                self._running.pop()

        return noted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[self._running[-1] if self._running else "other"] += 1
        return func(*args, **(kwargs or {}))


def chunk_of(rows: int, patch: pytest.MonkeyPatch) -> Operators:
    """What a chunk of each of ``rows`` streams of the packaged digits model asks for, once their windows are full."""
    system: Any = load_shared(published())
    engine = Engine(system, slots=rows, idle_timeout=None, isolates=False)
    streams = [engine.stream() for _ in range(rows)]

    def push(number: int) -> None:
        for row, stream in enumerate(streams):
            stream.push(0.1 * noise(100 * number + row, system.chunk_samples), system.sample_rate)

    for number in range(6):
        push(number)
        engine.decode()
    owners = {"frontend": system.frontend, "encoder": system.encoder, "adapter": system.adapter, "decoder": system.decoder}
    found = Operators({**{name: (owner, "step") for name, owner in owners.items()}, "search": (system.searcher, "step")}, patch)
    push(6)
    with found:
        engine.decode()
    patch.undo()
    return found


def test_a_chunk_of_the_digits_asks_for_few_operators_however_many_streams_bring_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, many = chunk_of(1, monkeypatch), chunk_of(8, monkeypatch)
    assert alone.calls == many.calls == {"frontend": 1, "encoder": 1, "adapter": 1, "search": 1, "decoder": 4}, "noise: BLANK"
    assert alone.counts == many.counts
    for name, most in MOST.items():
        assert many.counts[name] <= most, name


def test_a_constant_is_made_once_and_not_kept_where_it_has_no_numbers() -> None:
    made = 0

    def make() -> torch.Tensor:
        nonlocal made
        made += 1
        return torch.arange(3)

    with torch.inference_mode():
        first = constant(("of this test", 3), make)
        assert constant(("of this test", 3), make) is first and made == 1
    assert not first.is_inference(), "it may be used in training"
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        constant(("of this test", "imagined"), make)
    assert type(constant(("of this test", "imagined"), make)) is torch.Tensor and made == 3
