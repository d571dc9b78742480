"""Systems whose search is bounded, a step: what streams get does not change, only when."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.streaming.batched_step import BatchedStep
from reallm.streaming.engine import Engine
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


def batched(system: Any, isolates: bool = True) -> BatchedStep:
    return BatchedStep(system, 3, torch.device("cpu"), torch.float32, isolates)


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


class SickRow:
    """The step of a system that raises, after writing into the state, while row 2 goes on with its answers, as soon as it is told to."""

    def __init__(self, system: Any) -> None:
        self._step, self.broken = system.step, False

    def __call__(self, wav: Any, lens: Any, final: Any, state: Any) -> Any:
        search = state.search
        goes_on = bool((search.queue.count[2] > 0) | ~search.policy.wants_audio[2])
        found = self._step(wav, lens, final, state)
        if self.broken and goes_on:
            raise RuntimeError("row 2")
        return found


def heard_beside(sick: bool, bring: tuple[int, ...]) -> list[list[int]]:
    """What rows 0 and 1 say, row 0 and row 2 of which go on when row 2 becomes sick; ``bring``: those that bring a chunk in that step."""
    system = bounded("speech_reallm", positions=1)
    system.step = SickRow(system)
    step, size, found = batched(system), system.chunk_samples, [list[int](), list[int]()]

    def hear(heard: Any) -> None:
        for row, said in enumerate(found):
            assert sum(bool(one.took_part[row]) for one in heard) <= 1, "a row is stepped once"
            said.extend(token.token_id for one in heard if one.took_part[row] for token in one.rows.tokens(row))

    hear(step(chunks(system, {0: noise(7, size), 2: noise(9, size)}))[0])
    assert step.pending.tolist() == [True, False, True]
    system.step.broken = sick
    heard, failed = step(chunks(system, {row: noise(20 + row, size) for row in bring}))
    assert list(failed) == [2] * sick
    hear(heard)
    for number in range(60):
        heard, failed = step(chunks(system, {1: noise(30, size)} if number == 5 else {}))
        assert not failed, "it is that of a new stream"
        hear(heard)
        if sick:
            assert not any(one.took_part[2] for one in heard) and not step.pending[2]
    assert not step.pending.any()
    return found


@pytest.mark.parametrize("bring", [(), (1,), (0, 1)])
def test_a_row_that_cannot_go_on_fails_alone_and_for_once(bring: tuple[int, ...]) -> None:
    sick, healthy = heard_beside(True, bring), heard_beside(False, bring)
    assert sick == healthy and all(healthy)


def test_without_isolation_all_rows_of_the_step_fail_and_begin_anew() -> None:
    system = bounded("speech_reallm", positions=1)
    system.step = SickRow(system)
    step, fresh, size = batched(system, isolates=False), batched(bounded("speech_reallm", positions=1)), system.chunk_samples
    step(chunks(system, {0: noise(7, size), 2: noise(9, size)}))
    system.step.broken = True
    heard, failed = step(chunks(system, {1: noise(8, size)}))
    assert not heard and list(failed) == [0, 1, 2] and not step.pending.any() and not step.full.any()
    for number in range(9):
        brought = {0: noise(number, size)} if number < 2 else {}
        (one,), failed = step(chunks(system, brought))
        (other,), _ = fresh(chunks(system, brought))
        assert not failed and one.rows.tokens(0) == other.rows.tokens(0) and one.took_part.tolist() == other.took_part.tolist()


def test_who_gets_the_slot_of_one_that_fails_in_a_step_that_was_halved_hears_nothing_of_him() -> None:
    system = bounded("speech_reallm", positions=1)
    step, poisoned = Fragile(system), [False]

    def poison(wav: Any, lens: Any, final: Any, state: Any) -> Any:
        emission, after = step(wav, lens, final, state)
        if poisoned[0]:
            emission.lens[3] = 1
            emission.log_probs[3] = torch.nan
        return emission, after

    system.step = poison
    engine = Engine(system, slots=4, group=4, max_waiting=1)
    streams = sorted((engine.stream() for _ in range(4)), key=lambda stream: stream._row or 0)
    waiting, size = engine.stream_soon(), system.chunk_samples
    streams[3].push(noise(9, size), 8000)
    engine.step()
    assert engine._groups[0].batch.pending[3]
    poisoned[0] = True
    for row in range(3):
        streams[row].push((9.0 if row == 1 else 1.0) * noise(row, size), 8000)
    engine.step()
    poisoned[0] = False
    assert "too loud" in str(streams[1].error) and "became NaN" in str(streams[3].error)
    late = waiting.result(0)
    late.push(noise(5, 4000), 8000)
    free = talkative_system("speech_reallm")
    assert parts(late.finish()) == parts(alone(free, noise(5, 4000))) and late.result().text
    for row in (0, 2):
        assert parts(streams[row].finish()) == parts(alone(free, noise(row, size)))


def test_a_row_is_renewed_without_a_look_at_the_device() -> None:
    for which in ("speech_reallm", "ctc"):
        system = talkative_system(which).to("meta")  # which has no numbers, so that a mask there raises
        BatchedStep(system, 2, torch.device("meta"), torch.float32, True).renew(np.array([True, False]))
        recognizer = Recognizer(system)
        recognizer.stream().close()
        recognizer.stream()


@pytest.mark.parametrize("which", SYSTEMS)
def test_an_engine_is_told(which: str) -> None:
    engine, audio = Engine(talkative_system(which), slots=2, positions=2), noise(0, 9000)
    stream = engine.stream()
    stream.push(audio, 8000)
    steps = 0
    while engine.step():
        steps += 1
    assert parts(stream.finish()) == parts(alone(talkative_system(which), audio))
    assert steps > len(audio) // engine.system.chunk_samples, "responses went on in further steps"


def test_an_engine_whose_search_cannot_be_bounded() -> None:
    for which, name in (("ctc", "ctc"), ("speech_reallm beam", "beam")):
        with pytest.raises(InputError, match=f"positions 4: a step of '{name}' cannot be bounded, only one of greedy search: leave it out"):
            Engine(talkative_system(which), positions=4)
    with pytest.raises(InputError, match="positions is 0: at least 1"):
        Engine(talkative_system("transducer"), positions=0)
