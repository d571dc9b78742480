"""Why a stream ended is raised as often as it is used: that does not grow, and holds neither audio nor what a step computed."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reallm.errors import InputError
from reallm.streaming.engine import Engine
from reallm.streaming.engine_async import AsyncStream
from reallm.streaming.kept_errors import caused
from reallm.streaming.recognizer import Recognizer
from tests.dummies.engine_systems import noise, talkative_system
from tests.dummies.fragile import LOUD, fragile


def length(error: BaseException) -> int:
    """Entries of its traceback."""
    entry, count = error.__traceback__, 0
    while entry is not None:
        entry, count = entry.tb_next, count + 1
    return count


def raised(use: Callable[[Any], Any], times: int = 5) -> list[int]:
    """How long the error of each use of a piece of audio is, after which nothing has the audio."""
    found = []
    for seed in range(times):
        audio = noise(seed, 400)
        alive = weakref.ref(audio)
        with pytest.raises(InputError) as caught:
            use(audio)
        found.append(length(caught.value))
        del caught, audio
        gc.collect()  # of circles that pytest and asyncio make
        assert alive() is None
    return found


def failed_in_a_recognizer() -> Any:
    stream = Recognizer(talkative_system("ctc")).stream()
    stream.accept_waveform(np.full(9000, 3e38, dtype=np.float32), 8000)
    stream._recognizer.decode()
    return stream


def failed_in_an_engine() -> Any:
    stream = Engine(fragile(), slots=1).stream()
    stream.push(np.full(9000, 2 * LOUD, dtype=np.float32), 8000)
    stream._engine.decode()
    return stream


def reclaimed() -> Any:
    now = [0.0]
    stream = Engine(fragile(), slots=1, idle_timeout=1.0, clock=lambda: now[0]).stream()
    now[0] = 2.0
    stream._engine.step()
    return stream


def of_a_closed_engine() -> Any:
    stream = Engine(fragile(), slots=1).stream()
    stream._engine.close()
    return stream


USES: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], Any]]] = {
    "accept_waveform": (failed_in_a_recognizer, lambda stream, audio: stream.accept_waveform(audio, 8000)),
    "result": (failed_in_a_recognizer, lambda stream, audio: stream.result()),
    "finish of a recognizer": (failed_in_a_recognizer, lambda stream, audio: stream.finish()),
    "push": (failed_in_an_engine, lambda stream, audio: stream.push(audio, 8000)),
    "finish": (failed_in_an_engine, lambda stream, audio: stream.finish()),
    "finish in asyncio": (failed_in_an_engine, lambda stream, audio: asyncio.run(AsyncStream(stream).finish())),
    "push to one that was reclaimed": (reclaimed, lambda stream, audio: stream.push(audio, 8000)),
    "finish at the end of the engine": (of_a_closed_engine, lambda stream, audio: stream.finish()),
    "stream": (of_a_closed_engine, lambda stream, audio: stream._engine.stream()),
}


@pytest.mark.parametrize("which", USES)
def test_an_error_that_is_raised_again_and_again_does_not_grow_and_holds_no_audio(which: str) -> None:
    made, use = USES[which]
    stream = made()
    lengths = raised(lambda audio: use(stream, audio))
    assert len(set(lengths)) == 1
    if stream.error is not None:
        assert stream.error.__traceback__ is None


def test_what_a_stream_could_not_be_decoded_for_is_known_without_what_was_computed() -> None:
    stream = failed_in_an_engine()
    cause = stream.error.__cause__
    assert isinstance(cause, RuntimeError) and str(cause) == "too loud"
    entry, names = cause.__traceback__, []
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        assert not entry.tb_frame.f_locals
        entry = entry.tb_next
    assert names[-1] == "step", "where it was raised"
    with pytest.raises(InputError) as caught:
        stream.finish()
    assert caught.value.__cause__ is cause


def test_errors_behind_an_error_are_let_go_too() -> None:
    def outer(audio: Any) -> None:
        try:
            inner(audio)
        except ZeroDivisionError:
            raise ValueError from None

    def inner(audio: Any) -> float:
        return 1 / 0

    audio = noise(1, 400)
    alive = weakref.ref(audio)
    try:
        outer(audio)
    except ValueError as error:
        kept = caused("why", error)
    del audio
    gc.collect()
    assert alive() is None and isinstance(kept.__cause__, ValueError)
