"""Who is called when a future of the engine is done may use the engine: no lock is held by then."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from reallm.errors import InputError
from reallm.streaming.engine import Engine
from reallm.streaming.late_results import LateResults
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.recognizer import LevelSystem, say

PATIENCE = 30.0  # seconds after which a test that waits for something has failed


def levels() -> LevelSystem:
    return LevelSystem(CharacterTokenizer.tiny()).eval()


def without_hanging(scene: Callable[[], Any]) -> Any:
    """What ``scene`` gives, in a thread of its own, which is left behind where it hangs."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(scene())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def noting(called: list[Any], *calls: Callable[[], Any]) -> Callable[[Any], None]:
    """A callback that notes what each call gives, or its error."""

    def callback(future: Any) -> None:
        for call in calls:
            try:
                called.append(call())
            except Exception as error:
                called.append(error)

    return callback


def test_callbacks_of_the_worker_use_the_stream_and_the_engine() -> None:
    called, joined = list[Any](), list[Any]()
    over = threading.Event()

    def scene() -> None:
        engine = Engine(levels(), slots=1, max_waiting=1).start()
        stream = engine.stream()
        joining = engine.stream_soon()
        joining.add_done_callback(noting(joined, lambda: joining.result().push(say([5]), 8000)))
        stream.push(say([3]), 8000)
        stream.finish_soon().add_done_callback(
            noting(called, lambda: (stream.result().text, stream.waiting, engine.active), lambda: stream.push(say([1]), 8000), over.set)
        )
        assert over.wait(PATIENCE)
        assert joining.result(PATIENCE).finish(PATIENCE).text == "five"
        engine.close()

    without_hanging(scene)
    assert called[0] == ("three", 0.0, 1), "the next one had the slot already"
    assert "is finished" in str(called[1]) and joined == [len(say([5]))]


def test_a_callback_decodes_and_ends_others_where_there_is_no_worker() -> None:
    def scene() -> list[Any]:
        called: list[Any] = []
        engine = Engine(levels(), slots=2)
        first, second = engine.stream(), engine.stream()
        second.push(say([2, 4]), 8000)
        first.finish_soon().add_done_callback(noting(called, second.finish, engine.step, engine.close))
        first.finish()
        return called

    assert without_hanging(scene)[0].text == "two four"


@pytest.mark.parametrize("end", ["close", "engine", "audio", "resampler"])
def test_whatever_ends_a_stream_its_callback_holds_no_lock(end: str) -> None:
    def scene() -> tuple[str, list[Any]]:
        called: list[Any] = []
        engine = Engine(levels(), slots=1)
        stream = engine.stream()
        stream._final.add_done_callback(noting(called, lambda: stream.result().text, stream.reset, lambda: engine.step()))
        if end == "close":
            stream.close()
        elif end == "engine":
            engine.close()
        elif end == "audio":
            stream._listener.keep = lambda *what: 1 / 0  # type: ignore[method-assign,assignment]
            stream.push(say([1]), 8000)
            engine.decode()
        else:
            with pytest.raises(InputError):
                while True:
                    stream.push(np.zeros(1, dtype=np.float32), 1)
        return str(stream._final.exception()), called

    why, called = without_hanging(scene)
    assert called[0] == "" and isinstance(called[1], InputError) and called[2] is False
    expected = {"close": "closed before", "engine": "engine was closed", "audio": "ZeroDivisionError", "resampler": "held back"}
    assert expected[end] in why


def test_the_worker_does_not_wait_for_itself() -> None:
    def scene() -> Any:
        called: list[Any] = []
        over = threading.Event()
        with Engine(levels(), slots=2) as engine:
            first, second = engine.stream(), engine.stream()
            first.finish_soon().add_done_callback(noting(called, first.finish, second.finish, over.set))
            assert over.wait(PATIENCE)
            assert second.finish(PATIENCE).is_final
        return called

    own, other, _ = without_hanging(scene)
    assert own.is_final
    assert isinstance(other, InputError) and "worker calls this, and would wait for itself" in str(other)


def test_results_come_in_order_when_the_outermost_is_left_and_what_is_called_may_give_others() -> None:
    results, order = LateResults(), list[str]()
    first, second, third, cancelled = (Future[str]() for _ in range(4))

    def more(done: Future[str]) -> None:
        order.append(done.result())
        with results:
            results.give(third, "third")
        assert third.done() and second.done()

    first.add_done_callback(more)
    for future in (second, third):
        future.add_done_callback(lambda done: order.append(done.result()))
    cancelled.cancel()
    with pytest.raises(ZeroDivisionError), results:
        with results:
            results.give(cancelled, "never")
            results.give(first, "first")
        results.give(second, "second")
        assert not order and results.owes(first) and not results.owes(third)
        raise ZeroDivisionError
    assert order == ["first", "second", "third"] and cancelled.cancelled()
    assert not any(results.owes(future) for future in (first, second, third, cancelled))
    with pytest.raises(AssertionError):
        results.give(Future(), "outside")
