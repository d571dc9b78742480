"""Slots in groups: who shares one, whose turn it is, and what a step computes."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.streaming.engine import Engine
from reallm.streaming.engine_slots import FreeSlots
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.recognizer import LevelSystem, say, text_of

CHUNK: float = 0.3  # seconds, of LevelSystem


class WatchedSystem(LevelSystem):
    """Notes the lengths (G,) that each of its steps was given."""

    def __init__(self) -> None:
        super().__init__(CharacterTokenizer.tiny())
        self.steps: list[list[int]] = []

    def step(self, wav: torch.Tensor, lens: torch.Tensor, final: torch.Tensor, state: Any) -> Any:
        self.steps.append(lens.tolist())
        return super().step(wav, lens, final, state)


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def silence(chunks: int) -> np.ndarray:
    return np.zeros(round(8000 * chunks * CHUNK), dtype=np.float32)


@pytest.mark.parametrize(("slots", "group"), [(1, 1), (7, 1), (7, 3), (16, 8), (9, 9)])
def test_all_slots_are_given_once_and_again(slots: int, group: int) -> None:
    free, random, taken = FreeSlots(slots, group), np.random.default_rng(0), set[int]()
    for _ in range(200):
        assert len(free) == slots - len(taken)
        if len(free) and random.random() < 0.6:
            slot = free.take(random.random())
            assert 0 <= slot < slots and slot not in taken
            taken.add(slot)
        elif taken:
            slot = int(random.choice(sorted(taken)))
            taken.remove(slot)
            free.give_back(slot)


def test_a_slot_remains_in_its_group() -> None:
    free = FreeSlots(8, 4)
    slots = [free.take(0.0) for _ in range(8)]
    free.give_back(slots[1])
    free.give_back(5)
    assert free.take(0.5) == 5


def test_groups_come_into_use_one_by_one_and_take_the_phases_near_their_own() -> None:
    free = FreeSlots(32, 8)
    assert [free.take(0.5) // 8 for _ in range(4)] == [0] * 4, "few streams share a group, whatever their phases"
    assert [free.take(phase) // 8 for phase in (0.45, 0.1, 0.95, 0.6)] == [1, 0, 0, 1]
    assert [free.take(phase) // 8 for phase in (0.3, 0.2, 0.9, 0.55)] == [2, 2, 0, 1]
    assert [free.take(phase) // 8 for phase in (0.8, 0.3, 0.01)] == [3, 2, 0]
    assert [free.take(0.05) // 8 for _ in range(4)] == [2, 2, 2, 2], "the next nearest, where a group is full"


def test_live_streams_of_like_phases_share_their_steps() -> None:
    clock, system = Clock(), WatchedSystem()
    engine = Engine(system.eval(), slots=32, group=4, clock=clock)
    streams: list[list[Any]] = [[] for _ in range(4)]
    for number in np.random.default_rng(1).permutation(32).tolist():  # at four phases of the chunk, in any order
        phase = number % 4
        clock.now += CHUNK * ((phase / 4 - clock.now / CHUNK) % 1 + 1)
        streams[phase].append(engine.stream())
    for phase in streams:
        for stream in phase:
            stream.push(silence(1), 8000)
        engine.decode()
    steps = len(system.steps)
    assert steps <= 16, f"{steps} steps of 4 rows for 32 chunks: 8 would all be full, and 24 are those of groups in order of arrival"


def test_a_step_decodes_the_group_that_waits_longest_and_no_other() -> None:
    system = WatchedSystem()
    engine = Engine(system.eval(), slots=5, group=2)
    streams = {}
    for _ in range(5):
        stream = engine.stream()
        streams[stream._row] = stream
    with pytest.raises(InputError, match="all 5 streams are in use"):
        engine.stream()
    for row in (3, 4, 0, 1, 2):
        streams[row].push(silence(1), 8000)
    turns = []
    while engine._ring.wanting.any():
        before = [stream._row for stream in streams.values() if engine._ring.wants(stream._row)]
        engine.step()
        turns.append({row for row in before if not engine._ring.wants(row)})
    assert turns == [{2, 3}, {4}, {0, 1}], "that of the audio which was there first, and all that is ready in it"
    assert [len(lens) for lens in system.steps] == [2, 2, 2], "the last group has as many rows as the others"
    assert not engine.step() and len(system.steps) == 3


def test_a_backlog_lets_all_others_go_first_before_each_chunk() -> None:
    system = WatchedSystem()
    engine = Engine(system.eval(), slots=3, group=1)
    flood, *live = (engine.stream() for _ in range(3))
    flood.push(silence(20), 8000)
    engine.step()
    for _ in range(3):
        for stream in live:
            stream.push(silence(1), 8000)
        engine.step()
        engine.step()
        engine.step()
        assert not any(engine._ring.waiting(stream._row) for stream in live), "within a turn of each group"
    assert engine._ring.waiting(flood._row) == len(silence(16)), "and it has its own turns"


def test_a_late_group_waits_for_no_other() -> None:
    system = WatchedSystem()
    engine = Engine(system.eval(), slots=2, group=1)
    first, second = engine.stream(), engine.stream()
    first.push(say([3, 1]), 8000)
    engine.decode()
    second.push(silence(1)[:-1], 8000)
    system.steps.clear()
    assert first.finish().text == text_of([3, 1]) and not second.result().text
    assert all(len(lens) == 1 and lens[0] for lens in system.steps), "no step in which nothing is decoded"


def test_how_many_rows_a_group_has() -> None:
    system = talkative_system("ctc")
    for slots, group, expected in ((20, None, 8), (3, None, 3), (3, 5, 3), (20, 6, 6), (20, 1, 1)):
        assert Engine(system, slots=slots, group=group).group == expected
    assert Engine(talkative_system("ctc").to("meta"), slots=20).group == 20, "all, on an accelerator"


@pytest.mark.parametrize(("which", "group"), [("speech_reallm", 3), ("speech_reallm", 1), ("transducer", 2)])
def test_streams_whose_answers_go_on_in_the_next_step(which: str, group: int) -> None:
    free, system = talkative_system(which), talkative_system(which)
    system.searcher.positions = 1
    audio = [noise(number, samples) for number, samples in enumerate([16000, 0, 1337, 2560, 4001, 3000])]
    engine = Engine(system, slots=3, group=group)
    expected, found = [alone(free, samples) for samples in audio], []
    for number in range(0, len(audio), 3):
        streams = [engine.stream() for _ in range(3)]
        streams[0].push(noise(9, 2000), 8000)
        streams[1].push(noise(8, 2000), 8000)
        while engine._ring._ready(slice(None)).any():
            engine.step()
        assert engine._ring.wanting.any(), "they have no chunk, and go on"
        streams[0].reset()
        streams[1].close()
        streams[2].push(audio[number + 2][:1300], 8000)
        engine.step()
        streams[1] = engine.stream()
        audio[number + 2] = audio[number + 2][1300:]
        for begin in range(0, 16000, 8000):
            for stream, samples in zip(streams, audio[number:], strict=False):
                stream.push(samples[begin : begin + 8000], 8000)
            engine.step()
        found += [stream.finish() for stream in streams]
        assert not engine.step(), "who left wants nothing"
    assert [(one.text, one.token_ids) for one in found] == [(one.text, one.token_ids) for one in expected]
    assert all(one.is_final for one in found) and any(one.text for one in found)
