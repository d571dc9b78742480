"""A step that raises is undone, wherever it was and whatever it had written: the others get what they get in sound company, to the bit."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.streaming.engine import Engine
from reallm.streaming.kept_rows import KeptRows
from reallm.streaming.state import clone, tensors
from reallm.types import Hypothesis
from tests.dummies.engine_systems import noise, talkative_system

LOUD = 3.0


def raising(system: Any, part: str, after: int) -> Any:
    """The system, one of whose parts raises when it is called for the n-th time in a step in which somebody is loud."""
    component, step, inner = getattr(system, part), system.step, getattr(system, part).step
    heard = {"loud": False, "calls": 0}

    def whole(wav: torch.Tensor, *arguments: Any) -> Any:
        heard.update(loud=bool((wav.abs() > LOUD).any()), calls=0)
        return step(wav, *arguments)

    def one(*arguments: Any) -> Any:
        found = inner(*arguments)
        heard["calls"] += 1
        if heard["loud"] and heard["calls"] == after:
            raise RuntimeError("too loud")
        return found

    system.step, component.step = whole, one
    return system


def said(system: Any, sick: bool, resting: bool) -> list[list[Hypothesis]]:
    """What three streams get, some of which may rest at times, in company of a fourth, in a group of 3 and another one."""
    engine = Engine(system, slots=4, group=3, clock=lambda: 0.0)
    streams, found = [engine.stream() for _ in range(4)], [list[Hypothesis]() for _ in range(3)]
    ill = streams.pop(1)
    assert ill._row is not None and ill._row // 3 == (streams[0]._row or 0) // 3
    for begin in range(0, 4000, 500):
        for number, stream in enumerate(streams):
            if not resting or begin // 500 % 3 != number:
                stream.push(noise(number, 4000)[begin : begin + 500], 8000)
        if ill.error is None:
            ill.push(noise(9, 500) + (2 * LOUD if sick and begin == 2000 else 0.0), 8000)
        engine.decode()
        for stream, heard in zip(streams, found, strict=True):
            heard.append(stream.result())
    assert (ill.error is not None) == sick
    for stream, heard in zip(streams, found, strict=True):
        heard.append(stream.finish())
    return found


@pytest.mark.parametrize(
    ("which", "part", "after"),
    [
        ("speech_reallm", "frontend", 1),
        ("speech_reallm", "encoder", 1),
        ("speech_reallm", "decoder", 1),
        ("speech_reallm", "decoder", 4),
        ("speech_reallm", "searcher", 1),
        ("speech_reallm beam", "decoder", 3),
        ("speech_reallm ahead", "searcher", 1),
        ("transducer", "predictor", 2),
        ("transducer beam", "searcher", 1),
        ("ctc", "encoder", 1),
    ],
)
def test_who_is_in_a_step_that_raises_gets_what_is_his(which: str, part: str, after: int) -> None:
    for resting in (False, True):
        healthy = said(talkative_system(which), False, resting)
        assert said(raising(talkative_system(which), part, after), True, resting) == healthy
    assert any(heard[-1].token_ids for heard in healthy)


def test_rows_are_kept_and_restored_and_no_others() -> None:
    state = talkative_system("speech_reallm beam").init_state(4)
    for number, tensor in enumerate(tensors(state)):
        tensor.copy_(torch.full_like(tensor, number % 2 + 2))
    before, memory = clone(state), [tensor.data_ptr() for tensor in tensors(state)]
    kept = KeptRows(state)
    kept.keep(state, torch.tensor([1, 3]))
    delay = state.delay
    for tensor in tensors(state):
        tensor.zero_()
    state.delay = torch.full_like(delay, 7)
    restored = kept.restore(state)
    assert [tensor.data_ptr() for tensor in tensors(restored)] == memory
    for tensor, original in zip(tensors(restored), tensors(before), strict=True):
        assert torch.equal(tensor[[1, 3]], original[[1, 3]]) and not tensor[[0, 2]].any()


def test_groups_share_the_memory_of_one() -> None:
    system = talkative_system("ctc")
    batches = [group.batch for group in Engine(system, slots=5, group=2)._groups]
    assert len(batches) == 3 and all(batch._kept is batches[0]._kept is not None for batch in batches)
    assert all(group.batch._kept is None for group in Engine(system, slots=5, group=2, isolates=False)._groups)
    pointers = [tensor.data_ptr() for batch in batches for tensor in tensors(batch.state) if tensor.numel()]
    assert len(set(pointers)) >= len(pointers) // len(batches) and np.unique(pointers).size % len(batches) == 0
