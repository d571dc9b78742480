"""End of speech as users get it: from the recognizer, from the engine, and in the text."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.bundle import load, published
from reallm.errors import InputError
from reallm.registry import find
from reallm.streaming.engine import Engine
from reallm.streaming.offline import OfflineRecognizer
from reallm.streaming.options import StreamOptions
from reallm.streaming.recognizer import Recognizer
from reallm.types import Hypothesis
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.spoken_digits import two_pauses

CHOSEN: list[StreamOptions] = [{"end_of_speech": 0.16}, {}, {"end_of_speech": 0.04, "blank_penalty": -2.0}, {"end_of_speech": 0.4}]
SAMPLES = [7100, 4300, 6000, 5060]


def moody(which: str) -> Any:
    """A system that is silent in turns, and certain of it."""
    system = talkative_system(which)
    part = getattr(system, "joiner", getattr(system, "decoder", system))

    def mood(module: Any, inputs: Any, output: Any) -> Any:
        output[..., 0] -= 9.0  # a space is nothing said
        output[..., -1] += torch.where((9 * inputs[0][..., 2]).sin() > 0, 12.0, -12.0)
        return output

    part.output.register_forward_hook(mood)
    return system


@pytest.mark.parametrize("which", ["speech_reallm", "transducer beam", "ctc"])
def test_an_engines_streams_of_mixed_thresholds_end_speech_as_alone(which: str) -> None:
    system, random = moody(which), np.random.default_rng(0)
    expected = [alone(system, noise(job, samples), **CHOSEN[job]) for job, samples in enumerate(SAMPLES)]
    engine, found = Engine(system, slots=3), {}
    waiting, active = list(range(len(SAMPLES))), {}
    while waiting or active:
        while waiting and engine.active < 3:
            job = waiting.pop(0)
            active[job] = (engine.stream(**CHOSEN[job]), noise(job, SAMPLES[job]))
        for job, (stream, rest) in list(active.items()):
            size = int(random.integers(1, 3000))
            stream.push(rest[:size], 8000)
            active[job] = (stream, rest[size:])
            if not len(rest[size:]):
                found[job] = active.pop(job)[0].finish()
        engine.step()
    for job, one in enumerate(expected):
        assert found[job].text == one.text
        assert [(e.at, e.words, e.characters) for e in found[job].speech_ends] == [(e.at, e.words, e.characters) for e in one.speech_ends]
    assert any(one.speech_ends for one in expected) and not expected[1].speech_ends
    for one in expected:
        texts = [one.text[: end.characters] for end in one.speech_ends]
        assert [len(text.split()) for text in texts] == [end.words for end in one.speech_ends]
        assert sorted(set(texts), key=len) == texts, "each after something new"


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    return two_pauses()


def heard(stream: Any, audio: np.ndarray, push: Any) -> Hypothesis:
    for begin in range(0, len(audio), 1234):
        push(audio[begin : begin + 1234], 8000)
        stream.result()
    found: Hypothesis = stream.finish()
    return found


def test_the_digits_model_knows_when_somebody_has_stopped(said: np.ndarray) -> None:
    system = load(published("digits"))
    recognizer = Recognizer(system, max_streams=2)
    plain = heard(stream := recognizer.stream(), said, stream.accept_waveform)
    found = heard(stream := recognizer.stream(end_of_speech=0.8), said, stream.accept_waveform)
    assert (found.text, found.words) == (plain.text, plain.words) and plain.speech_ends == []
    first, second = found.speech_ends[:2]
    assert [end.words for end in found.speech_ends[:2]] == [2, len(found.words) - 1]
    assert found.text[: first.characters] == " ".join(word.word for word in found.words[:2])
    for end in (first, second):
        last, following = found.words[end.words - 1], found.words[end.words]
        assert last.end + 0.79 <= end.at <= last.end + 0.8 + 0.16, "a token period or two later"
        assert end.at <= end.emitted_at <= end.at + 0.5 and end.emitted_at < following.start
    patient = heard(stream := recognizer.stream(end_of_speech=3.0), said, stream.accept_waveform)
    assert patient.speech_ends == []
    with Engine(system, slots=3) as engine:
        neighbour = engine.stream(end_of_speech=0.2)
        neighbour.push(said[::-1], 8000)
        stream = engine.stream(end_of_speech=0.8)
        of_engine = heard(stream, said, stream.push)
    assert [(e.at, e.words, e.characters) for e in of_engine.speech_ends] == [(e.at, e.words, e.characters) for e in found.speech_ends]


def test_a_stream_that_begins_anew_keeps_its_threshold_and_forgets_its_ends(said: np.ndarray) -> None:
    engine = Engine(load(published("digits")), slots=1)
    stream = engine.stream(end_of_speech=0.8)
    stream.push(said, 8000)
    engine.decode()
    assert stream.result().speech_ends
    stream.reset()
    assert stream.result().speech_ends == []
    stream.push(said, 8000)
    assert len(stream.finish().speech_ends) >= 2


def test_thresholds_that_are_none_are_refused() -> None:
    system = talkative_system("ctc")
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=rf"^end_of_speech {seconds:g}: seconds of silence, such as 0\.8"):
            Recognizer(system).stream(end_of_speech=seconds)
    offline = OfflineRecognizer(find("system", "decoder_only").tiny().eval())
    with pytest.raises(InputError, match=r"^end_of_speech 0\.8: system 'decoder_only' has no such option of its streams: leave it out"):
        offline.stream(end_of_speech=0.8)
