"""How much Python runs: no more for many streams than for few."""

import gc
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reallm.streaming.engine import Engine
from reallm.streaming.listener import MOST_KEPT
from tests.dummies.engine_systems import SYSTEMS, alone, noise, talkative_system

SILENT = -1e4  # a penalty of BLANK with which nothing is said


def calls(function: Callable[[], Any]) -> Counter[str]:
    """The functions of Python, and those of other languages that Python calls, by how often they are called.

    Without the garbage collector, which comes when it likes, and calls what others have it call.
    """
    found: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            found[f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            found[argument.__qualname__] += 1

    gc.disable()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


def engine_of(system: Any, count: int) -> tuple[Engine, list[Any]]:
    """One group, all of whose streams say nothing and have an odd piece waiting."""
    engine = Engine(system, slots=count, group=count)
    streams = [engine.stream(blank_penalty=SILENT) for _ in range(count)]
    for number, stream in enumerate(streams):
        stream.push(noise(number, 1 + 37 * number % 500), 8000)
    return engine, streams


@pytest.mark.parametrize("which", SYSTEMS)
@pytest.mark.parametrize("ready", [None, 3])
def test_a_step_in_which_nothing_is_said_calls_the_same_functions_for_4_and_for_64_streams(which: str, ready: int | None) -> None:
    system, found = talkative_system(which), []
    for count in (4, 64):
        engine, streams = engine_of(system, count)
        for _ in range(3):  # the first steps begin streams
            for number, stream in enumerate(streams[:ready]):
                stream.push(noise(number, system.chunk_samples), 8000)
            noted = calls(engine.step)
        assert sum(times for name, times in noted.items() if name.endswith(":Engine.step")) == 1
        found.append(noted)
        assert not any(stream.result().text for stream in streams)
    assert found[0] == found[1]


def test_what_a_row_that_speaks_costs_a_step_does_not_hang_on_how_much_it_says() -> None:
    system, found, said = talkative_system("speech_reallm"), [], set[int]()
    for count in (4, 64):
        engine = Engine(system, slots=count, group=count)
        streams = [engine.stream() for _ in range(count)]
        steps = []
        for number in range(3):
            before = len(streams[0].result().token_ids)
            for stream in streams:
                stream.push(noise(number, system.chunk_samples), 8000)  # so that all say the same
            noted = calls(engine.step)
            steps.append(noted)
            said.add(len(streams[0].result().token_ids) - before)
            assert len({stream.result().text for stream in streams}) == 1
        found.append(steps)
    assert len(said) > 1 and min(said) > 0
    each = [{name: round((many[name] - few[name]) / 60) for name in many} for few, many in zip(*found, strict=True)]
    rows = [{name: times for name, times in row.items() if times} for row in each]  # what is called now and then is no row's
    assert rows[0] == rows[1] == rows[2] and sum(rows[0].values()) <= 20
    assert not any("transcript" in name for name in rows[0]), "words are made by who asks for them"


def test_words_that_nobody_asks_for_are_made_in_time() -> None:
    system = talkative_system("speech_reallm")
    engine = Engine(system, slots=1)
    stream, most = engine.stream(), 0
    for number in range(3 * MOST_KEPT):
        stream.push(noise(number, system.chunk_samples), 8000)
        engine.step()
        most = max(most, len(stream._listener._kept))
    assert most == MOST_KEPT - 1
    expected = alone(system, np.concatenate([noise(number, system.chunk_samples) for number in range(3 * MOST_KEPT)]))
    found = stream.finish()
    assert (found.text, found.token_ids, found.score) == (expected.text, expected.token_ids, expected.score)
    assert len(found.token_ids) > 3 * MOST_KEPT


def test_a_push_to_many_streams_calls_the_same_functions_of_python_for_4_and_for_64() -> None:
    system, found = talkative_system("ctc"), []
    for count in (4, 64):
        engine, streams = engine_of(system, count)
        pieces = np.stack([noise(number, 300) for number in range(count)])
        found.append({name: times for name, times in calls(lambda: engine.push_many(streams, pieces, 8000)).items() if ":" in name})  # noqa: B023
    assert found[0] == found[1]
