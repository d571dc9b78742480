"""Options of streams: each has its own, and gets what it gets alone with them."""

import gc
from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.registry import find
from reallm.streaming.engine import Engine
from reallm.streaming.offline import OfflineRecognizer
from reallm.streaming.options import StreamOptions, choose
from reallm.streaming.recognizer import Recognizer
from reallm.types import Hypothesis
from tests.dummies.engine_systems import alone, noise, talkative_system

PENALTIES: list[StreamOptions] = [{"blank_penalty": 3.0}, {}, {"blank_penalty": -9.0}, {"blank_penalty": None}]
PHRASES: list[StreamOptions] = [
    {"phrases": ["up xo", "ho"], "phrase_bonus": 40.0},
    {},
    {"phrases": ["sdr a"], "blank_penalty": -3.0},
    {"phrases": []},
]
DELAYS: list[StreamOptions] = [{"delay": 0.0}, {}, {"delay": 0.32, "blank_penalty": 2.0}, {"delay": 0.08}]
SAMPLES = [2201, 3400, 2777, 1560]
MIXED = ["speech_reallm beam", "transducer", "ctc", "delays"]


def choices(which: str) -> list[StreamOptions]:
    return {"delays": DELAYS, "ctc": PENALTIES}.get(which, PHRASES)


def mixed(system: Any, options: list[StreamOptions], slots: int) -> list[Hypothesis]:
    """One stream for each of the options, through an engine in odd pieces; slots are used again, some by a stream that begins anew."""
    random, engine, found = np.random.default_rng(1), Engine(system, slots=slots), {}
    waiting, active = list(range(len(options))), {}
    while waiting or active:
        while waiting and engine.active < slots:
            job = waiting.pop(0)
            stream = engine.stream(**options[job])
            if job % 2 == 0:  # it begins anew, with its own options
                stream.push(noise(99, 1700), 8000)
                engine.decode()
                stream.reset()
            active[job] = (stream, noise(job, SAMPLES[job]))
        for job, (stream, rest) in list(active.items()):
            size = int(random.integers(1, 1500))
            stream.push(rest[:size], 8000)
            active[job] = (stream, rest[size:])
            if not len(rest[size:]):
                found[job] = active.pop(job)[0].finish()
        engine.step()
    return [found[job] for job in range(len(options))]


@pytest.mark.parametrize("which", MIXED)
def test_streams_of_mixed_options_get_what_they_get_alone(which: str) -> None:
    system, options = talkative_system(which), choices(which)
    expected = [alone(system, noise(job, SAMPLES[job]), **own) for job, own in enumerate(options)]
    for found, one in zip(mixed(system, options, slots=3), expected, strict=True):
        assert (found.text, found.token_ids) == (one.text, one.token_ids)
    plain = [alone(system, noise(job, SAMPLES[job])) for job in range(len(options))]
    assert expected[0].token_ids != plain[0].token_ids or expected[2].token_ids != plain[2].token_ids, "they choose for nothing"
    if which != "ctc":
        gc.collect()
        assert system.searcher.phrases.on(torch.device("cpu")) is None, "lists leave with their streams"


@pytest.mark.parametrize("which", ["speech_reallm", "transducer beam", "ctc", "delays"])
def test_a_row_is_equal_to_the_bit_whatever_the_others_choose(which: str) -> None:
    system, audio = talkative_system(which), noise(7, 5000)
    found = []
    for others in ([{}, {}], choices(which)[:2]):
        engine = Engine(system, slots=3)
        neighbours = [engine.stream(**own) for own in others]
        stream = engine.stream(blank_penalty=1.0)
        for begin in range(0, len(audio), 900):
            for neighbour in neighbours:
                neighbour.push(noise(begin, 800), 8000)
            stream.push(audio[begin : begin + 900], 8000)
            engine.step()
        found.append(stream.finish())
    assert found[0] == found[1] and found[0].token_ids, "times, scores, confidences and all"


@pytest.mark.parametrize("search", ["greedy", "beam", "sampling"])
def test_a_streams_penalty_is_that_of_a_searcher_with_it(search: str) -> None:
    system, audio = talkative_system("speech_reallm"), noise(5, 5000)
    searcher: Any = find("searcher", search)
    found = []
    for own, of_stream in ((-9.0, None), (0.0, -9.0), (2.5, -9.0)):
        system.searcher = searcher(max_symbols=3, blank_penalty=own)
        found.append(alone(system, audio, blank_penalty=of_stream))
    assert found[0] == found[1] == found[2]
    system.searcher = searcher(max_symbols=3)
    assert found[0].token_ids != alone(system, audio).token_ids


def test_the_confidence_of_a_token_is_the_models_whatever_the_penalty() -> None:
    system: Any = talkative_system("ctc")
    scores = torch.full((1, 4, system.blank_id + 1), -9.0)
    scores[0, :, 3], scores[0, :, -1] = -2.0, -0.2
    system._log_probs = lambda enc: scores[:, : enc.size(1)].clone()
    found = [alone(system, noise(0, 640), blank_penalty=penalty) for penalty in (0.0, 3.0)]
    assert found[0].token_ids == [] and set(found[1].token_ids) == {3}
    assert found[1].score == -2.0 * len(found[1].token_ids)


def test_options_that_a_system_cannot_keep_are_refused_and_cost_no_slot() -> None:
    class Plain:  # of another package, whose rows choose nothing
        component_name = "plain"

    system = talkative_system("speech_reallm")
    for make in (Engine(system, slots=1), Recognizer(system)):
        for penalty in (float("nan"), float("inf")):
            with pytest.raises(InputError, match=rf"^blank_penalty {penalty}: a finite number"):
                make.stream(blank_penalty=penalty)  # type: ignore[attr-defined]
        with pytest.raises(InputError, match=r"trained for delays of 0\.08 s alone"):
            make.stream(delay=0.5)  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="unexpected keyword argument 'penalty'"):
            make.stream(penalty=1.0)  # type: ignore[attr-defined]
        make.stream().close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"^phrase 'Up': 'U' \(U\+0055 LATIN CAPITAL LETTER U\) in 'Up' not known to"):
        Recognizer(system).stream(phrases=["up", "Up"])
    with pytest.raises(InputError, match=r"^phrases: system 'ctc' has no search that can be biased towards them: leave them out"):
        Recognizer(talkative_system("ctc")).stream(phrases=["up"])
    offline = OfflineRecognizer(find("system", "aed").tiny().eval())
    with pytest.raises(InputError, match=r"^blank_penalty 1: system 'aed' has no such option of its streams: leave it out"):
        offline.stream(blank_penalty=1.0)
    system.searcher = Plain()
    with pytest.raises(InputError, match=r"system 'speech_reallm' with searcher 'plain' has no such option"):
        choose(system, blank_penalty=1.0)
