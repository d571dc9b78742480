"""The ring against a queue of samples a row."""

import numpy as np
import pytest

from reallm.streaming.sample_queue import SampleQueue
from reallm.streaming.sample_ring import SampleRing

CHUNK, CAPACITY = 40, 130


def test_chunks_are_those_of_a_queue_a_row() -> None:
    random = np.random.default_rng(0)
    ring = SampleRing(3, CHUNK, CAPACITY)
    queues, flushes, written = [SampleQueue() for _ in range(3)], [-1, -1, -1], [0, 0, 0]
    for row in range(3):
        ring.begin(row)
    ended = 0
    for _ in range(600):
        row = int(random.integers(0, 3))
        piece = random.standard_normal(int(random.integers(0, 70))).astype(np.float32)
        if flushes[row] < 0 and random.random() < 0.05:
            flushes[row] = int(random.integers(0, 100))
            ring.close(row, flushes[row])
            queues[row].push_zeros(flushes[row])
        elif flushes[row] < 0 and ring.waiting(row) + len(piece) <= ring.capacity:
            ring.write(row, piece)
            queues[row].push(piece)
            written[row] += len(piece)
            assert (ring.written(row), ring.waiting(row)) == (written[row], len(queues[row]))
        ready = [flushes[row] >= 0 or len(queues[row]) >= CHUNK for row in range(3)]
        assert ready == ring.wanting.tolist() == [ring.wants(row) for row in range(3)]
        assert ring.listening.tolist() == [flush < 0 for flush in flushes]
        if random.random() < 0.5:
            continue
        chunks = ring.take()
        assert chunks.rows.tolist() == ready
        for row in range(3):
            expected, final = np.zeros(CHUNK, dtype=np.float32), flushes[row] >= 0 and len(queues[row]) < CHUNK
            count = queues[row].take_into(expected) if ready[row] else 0
            assert (chunks.wav[row] == expected).all() and chunks.lens[row] == count and chunks.final[row] == final
            if final:
                ended += 1
                ring.begin(row)
                queues[row], flushes[row], written[row] = SampleQueue(), -1, 0
    assert ended > 20


def test_rows_written_at_once_are_those_written_one_by_one() -> None:
    random = np.random.default_rng(1)
    single, many = SampleRing(6, CHUNK, CAPACITY, 3), SampleRing(6, CHUNK, CAPACITY, 3)
    for ring in (single, many):
        for row in range(6):
            ring.begin(row)
    for _ in range(300):
        rows = random.permutation(6)[: int(random.integers(1, 7))]
        pieces = random.standard_normal((len(rows), int(random.integers(1, 3 * CAPACITY)))).astype(np.float32)
        pieces = pieces[:, : CHUNK // 2] if random.random() < 0.6 else pieces
        room = np.array([single.capacity - single.waiting(row) for row in rows])
        counts = np.minimum(room, random.integers(0, pieces.shape[1] + 1, len(rows)) if random.random() < 0.3 else pieces.shape[1])
        many.write_many(rows, pieces, counts)
        for row, piece, count in zip(rows, pieces, counts, strict=True):
            single.write(row, piece[:count])
        assert many.waiting_in(rows).tolist() == [single.waiting(row) for row in rows]
        assert many.wanting.tolist() == single.wanting.tolist()
        group = many.oldest()
        if group is not None and random.random() < 0.7:
            for mine, other in zip(many.take(group), single.take(group), strict=True):
                assert (mine == other).all()
    with pytest.raises(AssertionError):
        many.write_many(np.array([0]), np.ones((1, many.capacity + 1), dtype=np.float32), np.array([many.capacity + 1]))


def test_what_waits_is_audio_and_no_flush() -> None:
    ring = SampleRing(1, CHUNK, CAPACITY)
    ring.begin(0)
    ring.write(0, np.ones(CHUNK + 5, dtype=np.float32))
    ring.close(0, 2 * CHUNK)
    waiting = [ring.waiting(0)]
    while ring.wanting.any():
        ring.take()
        waiting.append(ring.waiting(0))
        assert ring.waiting_in(np.array([0])).tolist() == waiting[-1:]
    assert waiting == [CHUNK + 5, 5, 0, 0, 0]


def test_chunks_are_taken_into_the_same_memory() -> None:
    ring = SampleRing(4, CHUNK, CAPACITY, 2)
    for row in range(4):
        ring.begin(row)
        ring.write(row, np.full(CHUNK, row + 1, dtype=np.float32))
    first = ring.take(0)
    assert first.wav[:, 0].tolist() == [1, 2]
    second = ring.take(1)
    assert second.wav[:, 0].tolist() == [3, 4] and first.wav is second.wav
    assert ring.take(0).wav.any() == np.False_, "nothing of the one before"


def test_a_row_that_is_left_is_not_taken_and_one_that_overflows_is_a_bug() -> None:
    ring = SampleRing(2, CHUNK, CAPACITY)
    assert not ring.wanting.any(), "nobody began"
    for row in range(2):
        ring.begin(row)
        ring.write(row, np.ones(CHUNK, dtype=np.float32))
    ring.leave(0)
    chunks = ring.take()
    assert chunks.rows.tolist() == [False, True] and chunks.lens.tolist() == [0, CHUNK] and not chunks.wav[0].any()
    alone = chunks.of(np.array([True, False]))
    assert not alone.wav.any() and alone.lens.tolist() == [0, 0] and alone.rows.tolist() == [True, False]
    with pytest.raises(AssertionError):
        ring.write(1, np.ones(ring.capacity + 1, dtype=np.float32))
