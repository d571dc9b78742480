"""A step over tensors that stay where they are gives what a step gives; on a processor all but the capture is what an accelerator runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from reallm.streaming import batched_step
from reallm.streaming.batched_step import BatchedStep
from reallm.streaming.captured_step import CapturedStep, captures
from reallm.streaming.engine import Engine
from reallm.streaming.options import Choices, choose
from reallm.streaming.sample_ring import Chunks
from reallm.streaming.state import clone, tensors
from tests.dummies.engine_systems import alone, noise, talkative_system

SYSTEMS = ["speech_reallm", "transducer", "ctc", "delays"]
CPU = torch.device("cpu")


def bounded(which: str, positions: int = 3) -> Any:
    system = talkative_system(which)
    if which != "ctc":
        system.searcher.positions = positions
    return system


def captured(system: Any, rows: int = 3, device: torch.device = CPU) -> CapturedStep:
    with torch.inference_mode():
        return CapturedStep(system, system.init_state(rows, device), system.chunk_samples, torch.float32)


def chunks(system: Any, rows: int = 3) -> Iterator[Chunks]:
    """Rows that rest, bring whole chunks and end, at different times."""
    random, size = np.random.default_rng(0), system.chunk_samples
    for number in range(8):
        lens = np.where(random.random(rows) < 0.5, size, 0).astype(np.int64)
        final = np.zeros(rows, dtype=np.bool_)
        if number == 5:
            lens[1], final[1] = size // 3, True
        if number > 5:
            lens[1] = 0
        wav = np.stack([noise(10 * number + row, size) for row in range(rows)])
        yield Chunks(np.where(np.arange(size) < lens[:, None], wav, np.float32(0)), lens, final, lens > 0)


def said(rows: Any, size: int) -> list[Any]:
    return [(rows.tokens(row), rows.speech_ends(row)) for row in range(size)] + [rows.pending.tolist(), rows.full.tolist()]


def addresses(state: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors(state)]


@pytest.mark.parametrize("which", SYSTEMS)
def test_it_hears_what_a_step_hears_and_its_tensors_stay(which: str) -> None:
    system = bounded(which)
    plain, step = BatchedStep(system, 3, CPU, torch.float32, isolates=False), captured(system)
    stay, heard = addresses(step.state), 0
    own = [tensor.untyped_storage().data_ptr() for tensor in tensors(step.state) if tensor.numel()]
    assert len(own) == len(set(own))
    for taken in chunks(system):
        expected, rows = plain(taken)[0][0].rows, step(taken)
        assert said(rows, 3) == said(expected, 3)
        for one, other in zip(tensors(step.state), tensors(plain.state), strict=True):
            assert torch.equal(one, other)
        assert addresses(step.state) == stay
        heard += int(rows.lens.sum())
    assert heard > 2


@pytest.mark.parametrize("which", ["speech_reallm", "transducer", "ctc"])
def test_an_engine_whose_steps_are_captured_finds_what_a_recognizer_finds(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, free = bounded(which, positions=2), talkative_system(which)
    monkeypatch.setattr(batched_step, "captures", lambda system, device: True)
    engine = Engine(system, slots=2)
    assert all(isinstance(group.batch._captured, CapturedStep) for group in engine._groups)
    for audio in (noise(1, 7000), noise(2, 1300), noise(3, 5000)):  # one after another in the rows
        pair = [engine.stream(blank_penalty=1.0), engine.stream()]
        for begin in range(0, len(audio), 700):
            for stream in pair:
                stream.push(audio[begin : begin + 700], 8000)
            engine.step()
        penalized, plain = (stream.finish() for stream in pair)
        assert plain.token_ids == alone(free, audio).token_ids and plain.token_ids
        assert penalized.token_ids == alone(free, audio, blank_penalty=1.0).token_ids


def test_what_was_read_back_does_not_change_in_the_next_step() -> None:
    system = bounded("speech_reallm")
    step, found = captured(system), []
    for taken in chunks(system):
        rows = step(taken)
        found.append((rows, said(rows, 3)))
    assert all(said(rows, 3) == before for rows, before in found)


def test_choices_and_phrases_are_written_into_the_state_that_stays() -> None:
    system = bounded("delays")
    plain, step = BatchedStep(system, 3, CPU, torch.float32, isolates=False), captured(system)
    stay = addresses(step.state)
    chosen = choose(system, delay=0.0, blank_penalty=2.0, end_of_speech=0.2, phrases=["ab", "cab"])
    for target in (plain, step):
        choices = Choices(3)
        choices.put(1, chosen)
        taken = choices.take()
        assert taken is not None
        target.begin(taken)
    assert addresses(step.state) == stay and step.state.delay.tolist() == plain.state.delay.tolist()  # type: ignore[attr-defined]
    for taken_chunks in chunks(system):
        assert said(step(taken_chunks), 3) == said(plain(taken_chunks)[0][0].rows, 3)


def test_more_phrases_than_there_is_room_for_are_captured_anew() -> None:
    system = bounded("speech_reallm")
    step, size = captured(system), system.chunk_samples
    nothing = Chunks(np.zeros((3, size), np.float32), np.zeros(3, np.int64), np.zeros(3, np.bool_), np.zeros(3, np.bool_))
    step(nothing)
    kept = dict(step._replays)
    step(nothing)
    assert step._replays == kept, "once is enough"
    first = choose(system, phrases=["ab"])
    step(nothing)
    assert step._replays != kept, "there were no phrases"
    kept, more = dict(step._replays), choose(system, phrases=["abcdefghijkl" * 20])
    step(nothing)
    assert step._replays != kept and first is not None and more is not None
    ending = nothing._replace(final=np.array([True, False, False]))
    step(ending)
    assert set(step._replays) == {True, False}, "one where a row may end, one where none does"


@torch.inference_mode()
def test_states_that_share_memory_with_what_they_become_are_kept_apart() -> None:
    step = captured(bounded("speech_reallm"))
    queue: Any = step.state.search.queue  # type: ignore[attr-defined]
    queue.start.copy_(torch.tensor([1, 2, 3]))
    queue.count.copy_(torch.tensor([4, 5, 6]))
    after = clone(step.state)
    swapped: Any = after.search.queue  # type: ignore[attr-defined]
    swapped.start, swapped.count = queue.count, queue.start
    step.adopt(after)
    assert (queue.start.tolist(), queue.count.tolist()) == ([4, 5, 6], [1, 2, 3])


def test_steps_whose_way_hangs_on_numbers_are_not_captured() -> None:
    cuda = torch.device("cuda")
    assert all(captures(bounded(which), cuda) and not captures(bounded(which), CPU) for which in ("speech_reallm", "ctc"))
    assert not captures(talkative_system("speech_reallm"), cuda), "it goes on until all rows are done"
    assert not captures(talkative_system("speech_reallm beam"), cuda)
    ahead = talkative_system("speech_reallm ahead")
    ahead.searcher.positions = 3
    assert not captures(ahead, cuda)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("which", SYSTEMS)
def test_a_graph_gives_what_the_same_device_gives_step_by_step(which: str) -> None:
    cuda = torch.device("cuda")
    system = bounded(which).to(cuda)
    step = captured(system, device=cuda)
    with torch.inference_mode():
        plain = captured(system, device=cuda)
        plain._capture = lambda ends: plain._run  # type: ignore[method-assign]
        plain._replays = {}
    for taken in chunks(system):
        assert said(step(taken), 3) == said(plain(taken), 3)
