"""Pieces for many streams at once, against single pushes."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.streaming import intake
from reallm.streaming.engine import Engine
from reallm.streaming.resampler import Resampler
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.recognizer import LevelSystem, say, text_of

PATIENCE = 30.0  # seconds after which a test that waits for something has failed


def levels(**settings: Any) -> Engine:
    return Engine(LevelSystem(CharacterTokenizer.tiny()).eval(), **settings)


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_all_streams_get_what_single_pushes_give_them(group: int, rate: int) -> None:
    system = talkative_system("speech_reallm")
    engines = [Engine(system, slots=5, queue=0.3, group=group, clock=lambda: 0.0) for _ in range(2)]
    single, many = ([engine.stream() for _ in range(5)] for engine in engines)
    order = np.random.default_rng(group)
    audio = np.stack([noise(number, rate) for number in range(5)])
    begin = np.zeros(5, dtype=np.int64)
    while begin.min() < rate:
        chosen = order.permutation(5)[: int(order.integers(1, 6))]
        size = min(int(order.integers(0, 1500)), rate - int(begin[chosen].max()))
        pieces = np.stack([audio[row, begin[row] : begin[row] + size] for row in chosen])
        taken = engines[1].push_many([many[row] for row in chosen], pieces, rate)
        assert taken.tolist() == [single[row].push(piece, rate, timeout=0) for row, piece in zip(chosen, pieces, strict=True)]
        assert [stream.accepted for stream in many] == [stream.accepted for stream in single]
        assert [stream.waiting for stream in many] == [stream.waiting for stream in single]
        begin[chosen] += taken
        if order.random() < 0.5:
            assert engines[0].step() == engines[1].step()
        if size == 0:  # some are at the end and others are not
            for row in np.flatnonzero(begin < rate):
                rest = audio[row, begin[row] :]
                begin[row] += many[row].push(rest, rate)
                single[row].push(rest, rate)
    finals = [[stream.finish() for stream in streams] for streams in (many, single)]
    assert finals[0] == finals[1], "to the bit"
    assert [one.text for one in finals[0]] == [alone(system, one, rate).text for one in audio] and any(one.text for one in finals[0])


def test_audio_of_all_sorts() -> None:
    said = [[1, 2], [3, 4], [5, 6]]
    mono = np.stack([np.pad(one, (0, 16000 - len(one))) for one in map(say, said)])
    for wav in (
        (32767 * mono).astype(np.int16),
        torch.from_numpy(mono),
        mono.tolist(),
        np.stack([2 * mono, np.zeros_like(mono)], axis=-1),
        torch.from_numpy(mono).unsqueeze(-1),
    ):
        engine = levels(slots=3)
        streams = [engine.stream() for _ in said]
        assert engine.push_many(streams, wav, 8000).tolist() == [16000] * 3
        assert [stream.finish().text for stream in streams] == [text_of(digits) for digits in said]
    assert levels().push_many([], np.zeros((0, 7)), 8000).tolist() == []


def test_a_full_queue_takes_nothing_and_an_empty_piece_is_one() -> None:
    engine = levels(slots=2, queue=0.5)
    full, empty = engine.stream(), engine.stream()
    full.push(np.zeros(3000, dtype=np.float32), 8000)
    pieces = np.zeros((2, 2500), dtype=np.float32)
    assert engine.push_many([full, empty], pieces, 8000).tolist() == [1000, 2500]
    assert engine.push_many([full, empty], pieces, 8000).tolist() == [0, 1500]
    assert engine.push_many([full, empty], pieces[:, :0], 8000).tolist() == [0, 0]
    engine.step()
    assert engine.push_many([full, empty], pieces, 8000).tolist() == [2400, 2400]
    assert (full.waiting, full.accepted) == (0.5, 0.8)


def test_what_is_wrong_with_one_is_said_and_nothing_is_taken_of_any() -> None:
    engine, other = levels(slots=4), levels(slots=1)
    streams, pieces = [engine.stream() for _ in range(4)], np.zeros((4, 100), dtype=np.float32)
    broken = pieces.copy()
    broken[2, 7] = np.nan
    fast = engine.push_many(streams[3:], pieces[3:], 16000)
    assert fast.tolist() == [100]
    for given, wav, rate, said in (
        (streams, broken, 8000, "^stream 2 of 4: the audio holds 1 samples that are NaN"),
        (streams, pieces.astype(str), 8000, "^stream 0 of 4: samples of type"),
        (streams, pieces, 8000, "^stream 3 of 4: sample rate 8000: the stream began with 16000"),
        (streams[:3], pieces[:3], 0, "^sample rate 0"),
        (streams[:3], pieces, 8000, r"^audio of shape \(4, 100\) for 3 streams: give \(3, samples\) or \(3, samples, channels\)"),
        (streams[:3], pieces[0], 8000, r"^audio of shape \(100,\) for 3 streams"),
        ([*streams[:2], streams[0]], pieces[:3], 8000, "^3 streams, of which 2 are different: join the pieces of one"),
        ([streams[0], other.stream()], pieces[:2], 8000, "^stream 1 of 2 is another engine's"),
    ):
        with pytest.raises(InputError, match=said):
            engine.push_many(given, wav, rate)
    assert [stream.accepted for stream in streams[:3]] == [0.0] * 3
    streams[1].close()
    streams[2].finish_soon()
    for given, said in (
        (streams[:2], "^stream 1 of 2: this stream is finished"),
        (streams[2:3], "^stream 0 of 1: this stream is finished"),
    ):
        with pytest.raises(InputError, match=said):
            engine.push_many(given, pieces[: len(given)], 8000)
    assert streams[0].accepted == 0.0
    assert streams[0].push(pieces[0], 16000) == 100, "no rate was fixed"


def test_a_stream_that_is_closed_while_others_are_resampled_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = levels(slots=2)
    first, second = engine.stream(), engine.stream()
    take = first._intake.take
    monkeypatch.setattr(first._intake, "take", lambda *piece: (second.close(), take(*piece))[1])
    assert engine.push_many([first, second], np.zeros((2, 1000), dtype=np.float32), 16000).tolist() == [1000, 0]
    with pytest.raises(InputError, match="finished"):
        second.push(np.zeros(1), 16000)


def test_no_resampler_is_made_while_all_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, held = levels(slots=3), []

    def noted(*rates: int) -> Resampler:
        held.append(engine._lock.locked())
        return Resampler(*rates)

    streams = [engine.stream() for _ in range(3)]
    monkeypatch.setattr(intake, "Resampler", noted)
    assert engine.push_many(streams, np.zeros((3, 100), dtype=np.float32), 16000).tolist() == [100] * 3
    assert held == [False] * 3


def test_it_waits_for_a_piece_that_is_being_pushed_and_wakes_the_worker_for_a_chunk() -> None:
    engine = levels(slots=2)
    streams = [engine.stream() for _ in range(2)]
    with ThreadPoolExecutor(1) as threads:
        with streams[1]._input:
            pushed = threads.submit(engine.push_many, streams, np.zeros((2, 100)), 8000)
            with pytest.raises(TimeoutError):
                pushed.result(0.05)
            assert streams[0].accepted == 0.0
        assert pushed.result(PATIENCE).tolist() == [100, 100]
    assert not engine._wake.is_set()
    engine.push_many(streams[:1], np.zeros((1, engine.system.chunk_samples)), 8000)
    assert engine._wake.is_set()


def test_several_threads_that_push_to_the_same_streams() -> None:
    with levels(slots=6, queue=60.0) as engine, ThreadPoolExecutor(4) as threads:
        streams = [engine.stream() for _ in range(6)]

        def client(seed: int) -> int:
            order, taken = random.Random(seed), 0
            for _ in range(60):
                chosen = order.sample(streams, order.randint(1, 6))
                taken += int(engine.push_many(chosen, np.zeros((len(chosen), 100), dtype=np.float32), 8000).sum())
                taken += order.choice(streams).push(np.zeros(100, dtype=np.float32), 8000, PATIENCE)
            return taken

        total = sum(future.result(PATIENCE) for future in [threads.submit(client, seed) for seed in range(4)])
        for stream in streams:
            stream.finish(PATIENCE)
        assert round(8000 * sum(stream.accepted for stream in streams)) == total
