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
        assert ring.ready.tolist() == ready == [ring.is_ready(row) for row in range(3)]
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


def test_a_row_that_is_left_is_not_taken_and_one_that_overflows_is_a_bug() -> None:
    ring = SampleRing(2, CHUNK, CAPACITY)
    assert not ring.ready.any(), "nobody began"
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
