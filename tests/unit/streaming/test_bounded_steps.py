"""Systems whose search is bounded, a step: what streams get does not change, only when."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.streaming.batched_step import BatchedStep
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.sample_ring import Chunks
from reallm.types import Hypothesis
from tests.dummies.engine_systems import alone, noise, talkative_system

SYSTEMS = ["speech_reallm", "transducer"]


def bounded(which: str, positions: int = 2) -> Any:
    system = talkative_system(which)
    system.searcher.positions = positions
    return system


def parts(hypothesis: Hypothesis) -> tuple[Any, ...]:
    return hypothesis.text, hypothesis.token_ids, hypothesis.cap_hits, [(word.word, word.start, word.end) for word in hypothesis.words]


@pytest.mark.parametrize("which", SYSTEMS)
def test_a_recognizer_finds_the_same_words(which: str) -> None:
    free, system = talkative_system(which), bounded(which)
    audio = [noise(number, samples) for number, samples in enumerate([9000, 0, 2560, 5001])]
    recognizer, finals, step = Recognizer(system, max_streams=len(audio)), torch.zeros(len(audio)), system.step

    def spy(wav: Any, lens: Any, final: Any, state: Any) -> Any:
        finals.add_(final)
        return step(wav, lens, final, state)

    system.step = spy
    streams = [recognizer.stream() for _ in audio]
    for begin in range(0, 9000, 700):
        for stream, samples in zip(streams, audio, strict=True):
            stream.accept_waveform(samples[begin : begin + 700], 8000)
        recognizer.step()
    again = streams[2]
    found = [parts(one) for one in recognizer.finish(streams)]
    assert found == [parts(alone(free, samples)) for samples in audio] and found[0][0]
    assert not again.is_ready and finals.tolist() == [1] * len(audio)
    stream = recognizer.stream()  # in the row of one that had much to say
    stream.accept_waveform(audio[3], 8000)
    stream.reset()
    stream.accept_waveform(audio[2], 8000)
    assert parts(stream.finish()) == found[2]


def chunks(system: Any, audio: dict[int, Any], final: tuple[int, ...] = ()) -> Chunks:
    """Of three rows, of which some bring a whole chunk of audio, or what is left of it."""
    size = system.chunk_samples
    found = Chunks(np.zeros((3, size), dtype=np.float32), *(np.zeros(3, dtype=kind) for kind in (np.int64, np.bool_, np.bool_)))
    for row, samples in audio.items():
        found.wav[row, : len(samples)], found.lens[row], found.rows[row] = samples, len(samples), True
        found.final[row] = row in final
    return found


def batched(system: Any) -> BatchedStep:
    return BatchedStep(system, 3, torch.device("cpu"), torch.float32, isolates=True)


def test_rows_that_are_pending_go_on_without_a_chunk_and_end_when_they_are_done() -> None:
    system = bounded("speech_reallm", positions=1)
    step, size = batched(system), system.chunk_samples
    (heard,), failed = step(chunks(system, {0: noise(7, size), 1: noise(8, 100)}, final=(1,)))
    assert not failed and heard.took_part.tolist() == [True, True, False] and step.pending.tolist()[:2] == [True, True]
    assert not heard.final.any(), "its answers go on"
    ended, tokens = 0, [heard.rows.lens.copy()]
    while step.pending.any():
        expected = step.pending.copy()
        (heard,), _ = step(chunks(system, {}))
        assert heard.took_part.tolist() == expected.tolist() and not heard.final[0]
        assert bool(heard.final[1]) == (bool(expected[1]) and not step.pending[1])
        ended += int(heard.final[1])
        tokens.append(heard.rows.lens.copy())
    assert ended == 1 and sum(tokens)[0] > 1
    step(chunks(system, {0: noise(9, size)}))
    assert step.pending[0]
    step.renew(np.array([True, False, False]))
    assert not step.pending.any() and not step.full.any()


class Fragile:
    """The step of a system that raises at loud audio, or when it is told to."""

    def __init__(self, system: Any) -> None:
        self._step, self.broken = system.step, False

    def __call__(self, wav: Any, lens: Any, final: Any, state: Any) -> Any:
        found = self._step(wav, lens, final, state)
        if self.broken or bool((wav.abs() > 3).any()):
            raise RuntimeError("too loud")
        return found


def test_what_goes_wrong_in_a_row_costs_those_that_go_on_nothing() -> None:
    def tokens(loud: bool) -> list[int]:
        system = bounded("speech_reallm", positions=2)
        system.step = Fragile(system)
        step, size = batched(system), system.chunk_samples
        found = []

        def hear(heard: Any) -> None:
            for one in heard:
                if one.took_part[0]:
                    found.extend(token.token_id for token in one.rows.tokens(0))

        hear(step(chunks(system, {0: noise(7, size)}))[0])
        heard, failed = step(chunks(system, {1: noise(8, size), 2: (9.0 if loud else 1.0) * noise(9, size)}))
        assert list(failed) == [2] * loud
        hear(heard)
        while step.pending.any():
            hear(step(chunks(system, {}))[0])
        return found

    assert tokens(True) == tokens(False) and len(tokens(True)) > 2


def test_an_error_without_data_fails_all_that_went_on() -> None:
    system = bounded("speech_reallm", positions=1)
    system.step = Fragile(system)
    step, size = batched(system), system.chunk_samples
    step(chunks(system, {0: noise(7, size), 2: noise(8, size)}))
    going_on = np.flatnonzero(step.pending).tolist()
    system.step.broken = True
    heard, failed = step(chunks(system, {}))
    assert not heard and list(failed) == going_on and len(going_on) == 2 and not step.pending.any()
