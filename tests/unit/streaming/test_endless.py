"""A stream may go on for ever: what a second of audio costs does not grow with what was heard."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reallm.streaming.engine import Engine
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Audio
from tests.dummies.engine_systems import SYSTEMS, noise, talkative_system

RATE = 8000


class Work(TorchDispatchMode):
    """Counts operators and the bytes of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operators[str(func)] += 1
        self.bytes += sum(one.nbytes for one in tree_leaves(found) if isinstance(one, Tensor))
        return found


def recognizer_stream(system: Any) -> Callable[[Audio], object]:
    stream = Recognizer(system).stream()

    def hear(audio: Audio) -> object:
        stream.accept_waveform(audio, RATE)
        return stream.result()

    return hear


def engine_stream(system: Any) -> Callable[[Audio], object]:
    engine = Engine(system, slots=2)
    stream = engine.stream()

    def hear(audio: Audio) -> object:
        stream.push(audio, RATE)
        return engine.decode()

    return hear


ALONE = [which for which in SYSTEMS if which != "speech_reallm ahead"]  # whose operators hang on what is said


@pytest.mark.parametrize(
    ("which", "how"), [(which, recognizer_stream) for which in ALONE] + [("speech_reallm", engine_stream), ("ctc", engine_stream)]
)
def test_operators_and_bytes_of_a_second_do_not_grow(which: str, how: Callable[[Any], Callable[[Audio], object]]) -> None:
    system = talkative_system(which)
    hear, chunk = how(system), noise(1, system.chunk_samples)
    costs = []
    for before in (24, 10):  # chunks: longer than any window, left context or queue
        hear(np.tile(chunk, before))
        with Work() as work:
            hear(np.tile(chunk, 4))
        costs.append((work.operators, work.bytes))
    (early, early_bytes), (late, late_bytes) = costs
    assert sum(early.values()) > 1000
    assert abs(sum(late.values()) - sum(early.values())) <= 0.02 * sum(early.values()), late - early
    assert abs(late_bytes - early_bytes) <= 0.02 * early_bytes
