"""The engine's streams: whatever the others do, each gets what it gets alone."""

import gc
from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.registry import find
from reallm.streaming.engine import Engine
from reallm.streaming.engine_stream import EngineStream
from reallm.streaming.resampler import Audio
from reallm.streaming.state import tensors
from reallm.types import Hypothesis
from tests.dummies.engine_systems import COMPILED, SYSTEMS, alone, noise, talkative_system


@pytest.mark.parametrize(("which", "group"), [*((which, 3) for which in SYSTEMS + COMPILED), ("speech_reallm beam", 1), ("ctc", 2)])
def test_streams_that_join_and_leave_in_any_phase_get_what_they_get_alone(which: str, group: int) -> None:
    system, random = talkative_system(which), np.random.default_rng(3)
    jobs = [noise(number, samples) for number, samples in enumerate([0, 1, 1337, 5000, 2560, 7777, 640, 4001])]
    rates = [(8000, 16000)[number % 5 == 4] for number in range(len(jobs))]
    engine = Engine(system, slots=3, group=group)
    waiting, active, found = list(range(len(jobs))), {}, {}
    while waiting or active:
        while waiting and engine.active < 3 and random.random() < 0.7:
            job = waiting.pop()
            active[job] = (engine.stream(), jobs[job])
            if random.random() < 0.3:  # somebody who leaves in the middle of something
                active[job][0].push(noise(99, 3000), rates[job])
                engine.step()
                active[job][0].reset() if random.random() < 0.5 else active[job][0].close()
                if not engine._streams.count(active[job][0]):
                    active[job] = (engine.stream(), jobs[job])
        for job, (stream, audio) in list(active.items()):
            piece = int(random.integers(0, 2500))
            assert stream.push(audio[:piece], rates[job]) == len(audio[:piece])
            active[job] = (stream, audio[piece:])
            if not len(audio[piece:]):
                if random.random() < 0.5:
                    found[job] = stream.finish()
                else:
                    stream.finish_soon()
                    engine.decode()
                    found[job] = stream.result()
                del active[job]
        if random.random() < 0.6:
            engine.step()
    assert engine.active == 0
    for job, audio in enumerate(jobs):
        expected = alone(system, audio, rates[job])
        assert (found[job].text, found[job].token_ids) == (expected.text, expected.token_ids)
        assert found[job].is_final and [one.text for one in found[job].n_best] == [one.text for one in expected.n_best]
    assert sum(len(one.text) for one in found.values()) > 3, "nothing was said"


def in_pieces(engine: Engine, stream: EngineStream, audio: Audio, neighbour: Any = None) -> list[Hypothesis]:
    found = []
    for begin in range(0, len(audio), 700):
        stream.push(audio[begin : begin + 700], 8000)
        if neighbour is not None:
            neighbour(begin)
        engine.decode()
        found.append(stream.result())
    return [*found, stream.finish()]


@pytest.mark.parametrize(("which", "group"), [*((which, 4) for which in SYSTEMS + COMPILED), ("speech_reallm", 1), ("transducer beam", 3)])
def test_a_row_is_equal_to_the_bit_with_and_without_neighbours(which: str, group: int) -> None:
    system, audio = talkative_system(which), noise(7, 9000)
    engine = Engine(system, slots=4, group=group)
    quiet = in_pieces(engine, engine.stream(), audio)
    engine = Engine(system, slots=4, group=group)
    stream, others, random = engine.stream(), [engine.stream() for _ in range(3)], np.random.default_rng(5)

    def make_trouble(begin: int) -> None:
        other = int(random.integers(0, 3))
        others[other].push(5.0 * noise(begin, int(random.integers(0, 4000))), 8000)
        match begin // 700 % 5:
            case 1:
                others[other].reset()
            case 2:
                others[other].close()
                others[other] = engine.stream()
            case 4:
                others[other].finish_soon()
                engine.decode()
                others[other] = engine.stream()

    assert in_pieces(engine, stream, audio, make_trouble) == quiet, "times, scores, confidences and all"
    assert quiet[-1].token_ids


@pytest.mark.parametrize(("which", "group"), [("speech_reallm", 1), ("speech_reallm beam", 2), ("ctc", 2)])
def test_endless_streams_take_no_more_tensors(which: str, group: int) -> None:
    engine = Engine(talkative_system(which), slots=2, group=group)
    first, second = engine.stream(), engine.stream()

    def after(rounds: int) -> tuple[int, int, list[torch.Size]]:
        for number in range(rounds):
            for stream in (first, second):
                stream.push(noise(number, 3000), 8000)
            second.reset()
            engine.decode()
        gc.collect()
        alive = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
        return (
            len(alive),
            sum(x.numel() * x.element_size() for x in alive),
            [x.shape for group in engine._groups for x in tensors(group.batch.state)],
        )

    rings = engine._ring._ring.ctypes.data
    before = after(3)
    assert after(15) == before
    assert engine._ring._ring.ctypes.data == rings


def test_the_uncommitted_tail_of_a_beam_search_is_shown_apart() -> None:
    system, audio = talkative_system("speech_reallm beam"), noise(3, 9000)
    engine = Engine(system, slots=2)
    stream, neighbour = engine.stream(), engine.stream()
    tails, stable = [], ""
    for begin in range(0, len(audio), 800):
        stream.push(audio[begin : begin + 800], 8000)
        neighbour.push(audio[begin : begin + 800][::2], 8000)
        engine.decode()
        partial = stream.partial()
        assert partial.stable.text.startswith(stable), "what is stable is never taken back"
        stable = partial.stable.text
        state, row = engine._groups[0].batch.state, 0
        best = system.n_best(partial.stable.token_ids, state, row)[0]
        assert system.tokenizer.decode(best.token_ids) == (partial.stable.text + partial.tail).strip()
        tails.append(partial.tail)
    assert any(tails)
    while not stream.partial().tail:
        stream.push(noise(len(tails), 800), 8000)
        tails.append("")
        engine.decode()
    stream.reset()
    assert stream.partial().tail == "", "not that of before"
    stream.push(audio, 8000)
    stream.finish()
    assert stream.partial() == (stream.result(), "")
    greedy = Engine(talkative_system("speech_reallm")).stream()
    greedy.push(audio, 8000)
    greedy._engine.decode()
    assert greedy.partial().tail == "" != greedy.partial().stable.text


def test_reset_begins_anew_in_the_same_slot() -> None:
    system, audio = talkative_system("speech_reallm"), noise(1, 9000)
    engine = Engine(system, slots=2)
    stream = engine.stream()
    stream.push(noise(2, 7000), 44100)
    engine.decode()
    stream.push(noise(2, 1000), 44100)
    stream.reset()
    assert (stream.accepted, stream.result().text, engine.active) == (0.0, "", 1)
    stream.push(audio, 8000)
    assert stream.finish().text == alone(system, audio).text
    with pytest.raises(InputError, match=r"finished: get a new one from engine\.stream\(\)"):
        stream.reset()


def test_what_cannot_be_an_engine_says_why() -> None:
    system = talkative_system("ctc")
    for make, said in (
        (lambda: Engine("x"), r"^an engine needs a system, not a str: give it load\(PATH\)"),  # type: ignore[arg-type]
        (lambda: Engine(find("system", "aed").tiny().eval()), "recognizes whole utterances and does not stream"),
        (lambda: Engine(talkative_system("ctc").train()), r"call system\.eval\(\)"),
        (lambda: Engine(system, slots=0), "slots is 0: at least 1"),
        (lambda: Engine(system, group=0), "group is 0: at least 1"),
        (lambda: Engine(system, queue=-1.0), "queue is -1.0: at least 0"),
        (lambda: Engine(system, idle_timeout=-1.0), "idle_timeout is -1.0: at least 0"),
    ):
        with pytest.raises(InputError, match=said):
            make()
