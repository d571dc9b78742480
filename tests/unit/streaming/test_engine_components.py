"""Components of every kind that streams, under the engine: a stream gets what it gets alone, whatever the others do."""

from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reallm.contract.component import PROTOCOLS, tiny
from reallm.contract.system import talkative
from reallm.protocols import streams
from reallm.registry import catalogue
from reallm.streaming.engine import Engine
from reallm.types import Hypothesis
from tests.dummies.component_systems import COMPONENTS, KINDS, system_with
from tests.dummies.engine_systems import SYSTEMS, alone, noise


@cache
def talkative_system(kind: str, name: str, folder: Path) -> Any:
    return talkative(SimpleNamespace(tiny=partial(system_with, kind, name, folder), __qualname__=name)).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


def test_all_that_streams_is_here() -> None:
    assert {*KINDS, "aligner", "system"} == set(PROTOCOLS)  # aligners are of training
    assert {which.split()[0] for which in SYSTEMS} == {name for name, cls in catalogue("system").items() if streams(tiny(cls))}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_stream_gets_what_it_gets_alone(kind: str, name: str, folder: Path) -> None:
    system, random = talkative_system(kind, name, folder), np.random.default_rng(0)
    rate = system.sample_rate
    audio = [noise(number, samples) for number, samples in enumerate((rate // 2, 0, rate // 3 + 33))]
    engine = Engine(system, slots=2)
    waiting, active, texts = list(range(len(audio))), {}, {}
    while waiting or active:
        while waiting and engine.active < 2:
            job = waiting.pop(0)
            active[job] = (engine.stream(), audio[job])
        for job, (stream, rest) in list(active.items()):
            size = int(random.integers(1, rate // 3))
            stream.push(rest[:size], rate)
            active[job] = (stream, rest[size:])
            if not len(rest[size:]):
                texts[job] = active.pop(job)[0].finish().text
        engine.step()
    assert [texts[job] for job in range(len(audio))] == [alone(system, one, rate).text for one in audio]
    assert any(texts.values()), "nothing was said"


def heard(system: Any, neighbours: bool) -> list[Hypothesis]:
    """What one stream shows after each piece of its audio, next to streams that say something, begin anew, end and join, or to none."""
    engine, rate, random = Engine(system, slots=3), system.sample_rate, np.random.default_rng(1)
    stream, others, shown = engine.stream(), [], []
    for number, piece in enumerate(np.array_split(noise(7, rate), 11)):
        stream.push(piece, rate)
        if neighbours:
            while engine.active < engine.slots:
                others.append(engine.stream())
            others[number % 2].push(3.0 * noise(number, int(random.integers(0, rate // 3))), rate)
            if number % 4 == 2:
                others[0].reset()
            if number % 4 == 3:
                others.pop(0).finish()
        engine.step()
        shown.append(stream.result())
    return [*shown, stream.finish()]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_row_is_equal_to_the_bit_with_and_without_neighbours(kind: str, name: str, folder: Path) -> None:
    system = talkative_system(kind, name, folder)
    alone = heard(system, neighbours=False)
    assert len(alone[-1].token_ids) > 2, "too little was said"
    assert heard(system, neighbours=True) == alone, "times, scores, confidences and all"
