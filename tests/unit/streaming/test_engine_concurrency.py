"""The engine's worker: clients in threads and in asyncio, who wait for slots, for room, for words, and for nothing when it ends."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from reallm.errors import InputError
from reallm.streaming.engine import POLL, Engine
from reallm.streaming.engine_async import AsyncStream, open_stream
from reallm.streaming.resampler import Audio
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.recognizer import LevelSystem, say, text_of

PATIENCE = 30.0  # seconds after which a test that waits for something has failed


def jobs(count: int) -> list[Audio]:
    return [noise(number, (1 + number * 1777) % 6000) for number in range(count)]


def pieces(audio: Audio, seed: int) -> Iterator[Audio]:
    random = np.random.default_rng(seed)
    while len(audio):
        size = int(random.integers(1, 5000))
        yield audio[:size]
        audio = audio[size:]


def levels() -> LevelSystem:
    return LevelSystem(CharacterTokenizer.tiny()).eval()


@pytest.mark.parametrize(("which", "group"), [("speech_reallm", 3), ("speech_reallm", 2), ("ctc", 1)])
def test_threads_that_push_as_they_like(which: str, group: int) -> None:
    system, audio = talkative_system(which), jobs(6)

    def client(job: int) -> str:
        with engine.stream(PATIENCE) as stream:
            for piece in pieces(audio[job], job):
                assert stream.push(piece, 8000, PATIENCE) == len(piece)
                stream.partial()
            return stream.finish(PATIENCE).text

    with Engine(system, slots=3, queue=0.4, max_waiting=8, group=group) as engine, ThreadPoolExecutor(6) as threads:
        found = list(threads.map(client, range(6)))
    assert found == [alone(system, one).text for one in audio] and any(found)
    assert engine.active == 0


@pytest.mark.parametrize("group", [3, 1, 2])
def test_asyncio_clients_that_outrun_the_machine(group: int) -> None:
    system, audio = talkative_system("speech_reallm"), jobs(6)

    async def client(engine: Engine, job: int) -> str:
        async with await open_stream(engine) as stream:
            for piece in pieces(audio[job], job):
                await stream.push(piece, 8000)
                assert (await asyncio.sleep(0, stream.partial())).tail == ""
            return (await stream.finish()).text

    async def all_of_them() -> list[str]:
        with Engine(system, slots=3, queue=0.4, max_waiting=8, group=group) as engine:
            return await asyncio.wait_for(asyncio.gather(*(client(engine, job) for job in range(6))), PATIENCE)

    assert asyncio.run(all_of_them()) == [alone(system, one).text for one in audio]


def test_asyncio_clients_that_give_up() -> None:
    class Slow(LevelSystem):
        gate = threading.Event()

        def step(self, *arguments: Any) -> Any:
            self.gate.wait(PATIENCE)
            return super().step(*arguments)

    async def scene() -> None:
        with pytest.raises(InputError, match=r"call engine\.start\(\)"):
            await open_stream(Engine(levels()))
        with Engine(Slow(CharacterTokenizer.tiny()).eval(), slots=1, queue=0.4, max_waiting=2) as engine:
            stream = await open_stream(engine)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(open_stream(engine), 0.05)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.push(np.zeros(40000, dtype=np.float32), 8000), 0.05)
            stream.reset()
            Slow.gate.set()
            await stream.push(say([5]), 8000)
            ending = asyncio.ensure_future(stream.finish())
            await asyncio.sleep(0)
            ending.cancel()
            assert (await stream.finish()).text == stream.result().text == "five"
            assert engine.active == 0, "who gave up waiting for a slot got none"

    asyncio.run(asyncio.wait_for(scene(), PATIENCE))


@pytest.mark.parametrize("joined", [False, True])
def test_who_is_interrupted_while_waiting_for_a_slot_gets_none(joined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(levels(), slots=1, max_waiting=2)
    holder = None if joined else engine.stream()

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "_wait", interrupted)
        engine.stream()
    if holder is not None:
        holder.close()
    assert engine.active == 0
    stream = engine.stream()
    stream.push(say([4]), 8000)
    assert stream.finish().text == "four"


def test_pushes_that_time_out_leave_nothing_behind() -> None:
    system, begun, go_on = stuck(levels())
    with Engine(system, slots=1, queue=0.4) as engine:
        stream = engine.stream()
        stream.push(say([1, 2]), 8000, timeout=0)
        assert begun.wait(PATIENCE)
        while stream.push(np.zeros(8000, dtype=np.float32), 8000, timeout=0):
            pass
        for _ in range(20):
            assert stream.push(np.zeros(8000, dtype=np.float32), 8000, timeout=0.001) == 0
        assert len(stream._waiters) == 1

        async def give_up() -> None:
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(AsyncStream(stream).push(np.zeros(8000, dtype=np.float32), 8000), 0.01)

        asyncio.run(give_up())
        assert len(stream._waiters) == 1
        go_on.set()
        assert stream.push(np.zeros(8000, dtype=np.float32), 8000, PATIENCE) == 8000, "whoever goes on waiting is told"


def test_an_engine_that_nobody_has_any_more_ends_when_its_streams_have() -> None:
    engine = Engine(levels(), slots=2).start()
    worker, alive = engine._worker, weakref.ref(engine)
    stream = engine.stream()
    stream.push(say([5, 2]), 8000)
    final = stream.finish_soon()
    del engine, stream
    assert final.result(PATIENCE).text == text_of([5, 2]), "who waits for words gets them"
    assert worker is not None
    worker.join(PATIENCE)
    gc.collect()
    assert not worker.is_alive() and alive() is None
    engine = Engine(levels(), slots=1, max_waiting=1, idle_timeout=1.5 * POLL).start()
    threading.Event().wait(0.3 * POLL)  # until the worker sleeps
    left, waiting = engine.stream(), engine.stream_soon()
    del engine, left
    gc.collect()
    waiting.result(PATIENCE).close()  # when the other one is reclaimed
    held = Engine(levels(), slots=1, idle_timeout=None).start().stream()
    threading.Event().wait(1.5 * POLL)
    gc.collect()
    held.push(say([3]), 8000)
    assert held.finish(PATIENCE).text == "three", "who has a stream has the engine"


def test_phrases_are_compiled_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    system, threads = talkative_system("speech_reallm"), dict[str, threading.Thread]()
    add = system.searcher.phrases.add

    def noted(phrases: list[str], *rest: Any) -> Any:
        threads[phrases[0]] = threading.current_thread()
        return add(phrases, *rest)

    monkeypatch.setattr(system.searcher.phrases, "add", noted)

    async def scene() -> None:
        with Engine(system, slots=2, max_waiting=1) as engine:
            async with await open_stream(engine, phrases=["ab"]), await open_stream(engine):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(open_stream(engine, phrases=["ba"]), 0.2)
            assert engine.active == 0

    asyncio.run(scene())
    assert "ab" in threads and threading.main_thread() not in threads.values()


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def stuck(system: LevelSystem) -> tuple[LevelSystem, threading.Event, threading.Event]:
    """The system, whose next step begins with the first event and goes on with the second."""
    begun, go_on, step = threading.Event(), threading.Event(), system.step

    def wait(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return step(*arguments)

    system.step = wait  # type: ignore[method-assign]
    return system, begun, go_on


def test_what_happens_while_the_machine_is_busy() -> None:
    system, begun, go_on = stuck(LevelSystem(CharacterTokenizer.tiny(), chunk_frames=40).eval())
    engine = Engine(system, slots=3, queue=0.4)
    left, reset, full = (engine.stream() for _ in range(3))
    for stream in (left, reset, full):
        stream.push(say([1, 2, 3, 4, 5]), 8000, timeout=0)  # a chunk in which something is said
    with engine:
        assert begun.wait(PATIENCE)
        left.close()
        heir = engine.stream()
        heir.push(np.zeros(2000, dtype=np.float32), 8000)
        reset.reset()
        reset.push(say([4])[:2000], 8000)
        assert full.push(say([1, 2, 3, 4, 5]), 8000, timeout=0) == 16000, "a chunk was taken"
        pusher, pushed = in_thread(lambda: full.push(np.zeros(9000, dtype=np.float32), 8000))
        timed, timed_out = in_thread(lambda: full.push(np.zeros(9000, dtype=np.float32), 8000, timeout=0.05))
        timed.join(PATIENCE)
        assert timed_out == [0] and pusher.is_alive()
        assert [stream.result().text for stream in (heir, reset)] == ["", ""]
        with pytest.raises(TimeoutError):
            heir.finish(timeout=0.01)
        go_on.set()
        pusher.join(PATIENCE)
        assert pushed == [9000]
        reset.push(say([4])[2000:], 8000)
        assert reset.finish(PATIENCE).text == "four"
        assert heir.finish(PATIENCE).text == "", "nothing of the one before, whose chunk was being decoded"
        assert full.finish(PATIENCE).is_final
    with pytest.raises(InputError, match="the engine was closed"):
        engine.stream()


def test_whoever_waits_when_a_stream_is_reset_or_the_engine_closes_is_told() -> None:
    system, begun, go_on = stuck(levels())
    engine = Engine(system, slots=2, queue=0.4, max_waiting=1)
    first, second = engine.stream(), engine.stream()
    for stream in (first, second):
        stream.push(say([1, 2]), 8000, timeout=0)
    engine.start()
    assert begun.wait(PATIENCE)
    waits = [in_thread(call) for call in (lambda: first.push(np.zeros(20000, dtype=np.float32), 8000), second.finish, engine.stream)]
    while not (first._waiters and second._input_over and engine._joining):
        threading.Event().wait(0.01)
    first.reset()
    waits[0][0].join(PATIENCE)
    assert "was reset while this piece was being pushed" in str(waits[0][1][0])
    closing, _ = in_thread(engine.close)
    for thread, found in waits[1:]:
        thread.join(PATIENCE)
        assert str(found[0]) == "the engine was closed"
    go_on.set()
    closing.join(PATIENCE)
    assert not closing.is_alive() and not engine.is_running
    for use in (first.finish, second.finish, engine.start, lambda: second.push(say([1]), 8000)):
        with pytest.raises(InputError, match="the engine was closed"):
            use()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_engine_itself_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(levels(), slots=1) as engine:
        stream = engine.stream()
        monkeypatch.setattr(engine, "_deliver", lambda *arguments: 1 / 0)
        stream.push(say([1]), 8000)
        with pytest.raises(InputError, match=r"stopped at an error of its own: ZeroDivisionError") as caught:
            stream.finish(PATIENCE)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(InputError, match="stopped at an error"):
            engine.stream()


def test_idle_streams_are_reclaimed_by_a_worker_that_has_nothing_to_do() -> None:
    with Engine(levels(), slots=1, idle_timeout=0.1) as engine:
        stream = engine.stream()
        stream.push(say([2, 3], trailing=0.0), 8000)
        waited = 0.0
        while not stream.is_final and waited < PATIENCE:
            threading.Event().wait(0.05)
            waited += 0.05
        assert stream.reclaimed and stream.finish().text == text_of([2, 3])
        assert engine.active == 0
