"""A step over tensors that stay where they are gives what a step gives; on a processor all but the capture is what an accelerator runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
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


def nothing(system: Any, rows: int = 3) -> Chunks:
    zero = np.zeros(rows, dtype=np.int64)
    return Chunks(np.zeros((rows, system.chunk_samples), dtype=np.float32), zero, zero > 0, zero > 0)


def chunks(system: Any, full: Callable[[], Any], rows: int = 3) -> Iterator[Chunks]:
    """Rows that rest, bring whole chunks and end, at different times, when none of them is ``full`` (B,) any more."""
    random, size = np.random.default_rng(0), system.chunk_samples
    for number in range(8):
        while full().any():
            yield nothing(system, rows)
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
    for taken in chunks(system, lambda: plain.full):
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
    step, found = captured(system), list[Any]()
    for taken in chunks(system, lambda: found[-1][0].full if found else np.zeros(3)):
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
    for taken_chunks in chunks(system, lambda: plain.full):
        assert said(step(taken_chunks), 3) == said(plain(taken_chunks)[0][0].rows, 3)


def test_what_is_captured_is_captured_once_and_with_phrases_once_more_and_where_they_get_more_room() -> None:
    system = bounded("speech_reallm")
    step, still = captured(system), nothing(system)

    def replays() -> dict[Any, Any]:
        step(still)
        return dict(step._replays)

    without = replays()
    assert replays() == without and list(without) == [(False, False)]
    phrases = choose(system, phrases=["ab"])
    biased = replays()
    assert set(biased) == {(False, False), (False, True)} and biased[False, False] is without[False, False]
    table = step._phrases
    del phrases
    assert replays() == biased, "they left"
    again = choose(system, phrases=["ba"])
    assert replays() == biased and step._phrases is table, "there is room for others"
    more = choose(system, phrases=["abcdefghijkl" * 20])
    anew = replays()
    assert again is not None and more is not None
    assert anew[False, True] is not biased[False, True] and anew[False, False] is without[False, False] and step._phrases is not table
    step(still._replace(final=np.array([True, False, False])))
    assert set(step._replays) == {(False, False), (False, True), (True, True)}, "one where a row may end, one where none does"


def test_what_is_captured_while_phrases_come_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    system, found = bounded("speech_reallm"), []
    step = captured(system)
    capture = step._capture

    def meanwhile(ends: bool) -> Any:
        found.append(choose(system, phrases=["ab"]))
        return capture(ends)

    monkeypatch.setattr(step, "_capture", meanwhile)
    step(nothing(system))
    assert len(found) == 1 and not step._replays, "it may have been with phrases, or without"


def test_all_of_it_is_on_the_device_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, seen = [False], []

    @contextmanager
    def there(step: CapturedStep) -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    def noting(name: str, function: Any) -> Any:
        def noted(*arguments: Any, **options: Any) -> Any:
            seen.append((name, inside[0]))
            return function(*arguments, **options)

        return noted

    ours = CapturedStep._there
    monkeypatch.setattr(CapturedStep, "_there", there)
    monkeypatch.setattr(CapturedStep, "_pinned", noting("made", CapturedStep._pinned))
    monkeypatch.setattr(CapturedStep, "adopt", noting("written", CapturedStep.adopt))
    system = bounded("delays")
    system.step = noting("stepped", system.step)
    step = captured(system)
    choices = Choices(3)
    choices.put(1, choose(system, blank_penalty=2.0))
    taken = choices.take()
    assert taken is not None
    step.begin(taken)
    step(nothing(system))
    assert {name for name, _ in seen} == {"made", "written", "stepped"} and all(known for _, known in seen)
    monkeypatch.setattr(torch.cuda, "device", lambda device: ("current", device))
    second: Any = SimpleNamespace(_device=torch.device("cuda", 1))
    assert ours(second) == ("current", torch.device("cuda", 1))  # type: ignore[comparison-overlap]


def test_steps_that_cannot_be_captured_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(system: Any, state: Any, *rest: Any) -> Any:
        for tensor in tensors(state):
            tensor.fill_(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(batched_step, "captures", lambda system, device: True)
    monkeypatch.setattr(batched_step, "CapturedStep", fails)
    system = bounded("speech_reallm")
    with caplog.at_level("WARNING", "reallm"):
        engine = Engine(system, slots=4, group=2)
    assert [record.getMessage() for record in caplog.records] == [
        "the steps of system 'speech_reallm' are not captured, and take longer: operation not permitted when stream is capturing"
    ]
    assert all(group.batch._captured is None and group.batch._kept is not None for group in engine._groups), "they are isolated again"
    stream = engine.stream()
    stream.push(noise(1, 7000), 8000)
    assert stream.finish().token_ids == alone(talkative_system("speech_reallm"), noise(1, 7000)).token_ids


@pytest.mark.parametrize(
    ("fitting", "group", "said"),
    [
        (2, 2, r"for 8 slots in groups of 2, .*: 4 fitted, slots=4 may do$"),
        (0, 2, r"for 8 slots in groups of 2, .*: not one group fitted, group=1 may do$"),
        (0, 1, r"for 8 slots in groups of 1, .*: not one fitted, another device may do$"),
    ],
)
def test_no_memory_is_no_reason_for_slow_steps(fitting: int, group: int, said: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    made = list[CapturedStep]()

    def bounded_memory(*arguments: Any) -> CapturedStep:
        if len(made) == fitting:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        made.append(CapturedStep(*arguments))
        return made[-1]

    monkeypatch.setattr(batched_step, "captures", lambda system, device: True)
    monkeypatch.setattr(batched_step, "CapturedStep", bounded_memory)
    with caplog.at_level("WARNING", "reallm"), pytest.raises(InputError, match=rf"^not enough memory on cpu {said}") as caught:
        Engine(bounded("speech_reallm"), slots=8, group=group)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError) and not caplog.records


def test_all_graphs_of_an_engine_compute_in_the_same_memory_and_what_is_shared_is_warmed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, warmed = [], []

    @contextmanager
    def graph(graph: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
        pools.append(pool)
        yield

    on_cuda, prepare = torch.device("cuda"), CapturedStep._prepare

    def imagined(step: CapturedStep, *arguments: Any) -> None:
        prepare(step, *arguments)  # on the processor
        step._device = on_cuda
        monkeypatch.setattr(step, "_table", lambda: None)
        monkeypatch.setattr(step, "_pinned", torch.zeros)
        monkeypatch.setattr(step, "_warm_up", lambda: warmed.append(step))
        with torch.device("cpu"):
            CapturedStep._capture_all(step)

    monkeypatch.setattr(CapturedStep, "_there", lambda step: nullcontext())
    monkeypatch.setattr(CapturedStep, "_prepare", imagined)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(batched_step, "captures", lambda system, device: True)
    engine = Engine(bounded("speech_reallm"), slots=6, group=2)
    assert len(pools) == 2 * 3 and pools[0] is not None and all(pool is pools[0] for pool in pools)
    assert warmed == [engine._groups[0].batch._captured]


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
    of_a_plugin: Any = SimpleNamespace(searcher=object())
    assert not captures(of_a_plugin, cuda), "it does not say that it is static"


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
    full = [np.zeros(3)]
    for taken in chunks(system, lambda: full[0]):
        rows = step(taken)
        full[0] = rows.full
        assert said(rows, 3) == said(plain(taken), 3)
