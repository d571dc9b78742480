"""What a recognizer's single stream shows and forgets: partial results, and reset."""

import pytest

from reallm.errors import InputError
from reallm.streaming.engine import Engine
from reallm.streaming.offline import OfflineRecognizer
from reallm.streaming.recognizer import Recognizer
from tests.dummies.engine_systems import alone, noise, talkative_system


def test_partial_results_are_those_of_an_engine() -> None:
    system, audio = talkative_system("speech_reallm beam"), noise(3, 6000)
    stream, of_engine = Recognizer(system).stream(), (engine := Engine(system, slots=1)).stream()
    tails, stable = [], ""
    for begin in range(0, len(audio), 700):
        stream.accept_waveform(audio[begin : begin + 700], 8000)
        of_engine.push(audio[begin : begin + 700], 8000)
        engine.decode()
        partial = stream.partial()
        assert (partial.stable.text, partial.tail) == (of_engine.partial().stable.text, of_engine.partial().tail)
        assert partial.stable.text.startswith(stable), "what is stable is never taken back"
        stable = partial.stable.text
        tails.append(partial.tail)
    assert any(tails)
    final = stream.finish()
    assert final.is_final and final.text.startswith(stable) and stream.partial() == (final, "")


@pytest.mark.parametrize("which", ["speech_reallm beam", "delays", "ctc"])
def test_reset_begins_anew_with_the_same_options(which: str) -> None:
    system, audio = talkative_system(which), noise(1, 4000)
    options = {"delay": 0.32} if which == "delays" else {"blank_penalty": 2.0}
    recognizer = Recognizer(system, max_streams=2)
    neighbour, stream = recognizer.stream(), recognizer.stream(**options)  # type: ignore[arg-type]
    for one in (neighbour, stream):
        one.accept_waveform(noise(2, 3000), 44100 if one is stream else 8000)
        one.result()
    stream.accept_waveform(noise(2, 900), 44100)
    stream.reset()
    assert (stream.accepted, stream.partial().stable.text, stream.partial().tail) == (0.0, "", "")
    stream.accept_waveform(audio, 8000)
    assert stream.finish().text == alone(system, audio, **options).text  # type: ignore[arg-type]
    assert neighbour.finish().text == alone(system, noise(2, 3000)).text
    with pytest.raises(InputError, match=r"finished: get a new one from recognizer\.stream\(\)"):
        stream.reset()


def test_a_stream_that_is_heard_as_a_whole_begins_anew_too() -> None:
    from reallm.contract.system import talkative
    from reallm.registry import find

    system = talkative(find("system", "aed")).float()
    stream = OfflineRecognizer(system).stream()
    stream.accept_waveform(noise(2, 3000), 8000)
    stream.reset()
    assert stream.partial().stable.text == stream.partial().tail == ""
    stream.accept_waveform(noise(1, 3000), 8000)
    fresh = OfflineRecognizer(system).stream()
    fresh.accept_waveform(noise(1, 3000), 8000)
    assert stream.finish().text == fresh.finish().text
