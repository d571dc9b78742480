"""The audio of many streams: written in pieces, row by row, and taken in chunks, all rows at once. B rows, S_c samples of a chunk."""

from typing import Any, NamedTuple

import numpy as np

from reallm.streaming.resampler import Audio

Integers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Chunks(NamedTuple):
    """What one step of a system takes in."""

    wav: Audio  # (B, S_c)
    lens: Integers  # (B,), 0 = this row has nothing now
    final: Mask  # (B,), the row's last chunk
    rows: Mask  # (B,), the rows that take part

    def of(self, rows: Mask) -> "Chunks":
        """The same for ``rows`` (B,) alone: the others have nothing now."""
        return Chunks(np.where(rows[:, None], self.wav, np.float32(0)), np.where(rows, self.lens, 0), self.final & rows, rows)


class SampleRing:
    """A ring of samples a row, allocated once. Streams begin and end in rows; the zeros that flush a stream are not stored.

    A row's samples are taken by whole chunks until its last one, so that a chunk is never in two pieces.

    Args:
        rows: B.
        chunk: S_c.
        capacity: samples that a row has room for, at least.
    """

    def __init__(self, rows: int, chunk: int, capacity: int) -> None:
        self._ring = np.zeros((rows, -(-capacity // chunk) + 1, chunk), dtype=np.float32)
        self._written = np.zeros(rows, dtype=np.int64)  # samples since the stream began
        self._taken = np.zeros(rows, dtype=np.int64)
        self._end = np.full(rows, -1, dtype=np.int64)  # samples of the whole stream and its flush; -1 = it goes on
        self._open = np.zeros(rows, dtype=np.bool_)  # of a stream whose last chunk was not taken yet

    @property
    def capacity(self) -> int:
        """Samples that a row has room for."""
        return self._ring.shape[1] * self._ring.shape[2]

    @property
    def listening(self) -> Mask:
        """(B,) bool: the rows whose audio goes on."""
        return self._open & (self._end < 0)

    @property
    def ready(self) -> Mask:
        """(B,) bool: the rows that have a whole chunk, or a last one."""
        ended = self._end >= 0
        waiting = np.where(ended, self._end, self._written) - self._taken
        return self._open & (ended | (waiting >= self._ring.shape[2]))

    def is_ready(self, row: int) -> bool:
        """``ready`` of one row."""
        return bool(self._open[row]) and (self._end[row] >= 0 or self.waiting(row) >= self._ring.shape[2])

    def waiting(self, row: int) -> int:
        """Samples of a row that were written and not taken."""
        return int(self._written[row] - self._taken[row])

    def written(self, row: int) -> int:
        """Samples of the row's stream since it began, the flush not counted."""
        return int(self._written[row])

    def begin(self, row: int) -> None:
        """A new stream in a row."""
        self._written[row] = self._taken[row] = 0
        self._end[row] = -1
        self._open[row] = True

    def leave(self, row: int) -> None:
        """Nothing more is taken of the row."""
        self._open[row] = False

    def write(self, row: int, samples: Audio) -> None:
        """Append samples (S,), which the caller knows to fit."""
        assert self.waiting(row) + len(samples) <= self.capacity
        line = self._ring[row].reshape(-1)
        begin = int(self._written[row]) % len(line)
        first = min(len(samples), len(line) - begin)
        line[begin : begin + first] = samples[:first]
        line[: len(samples) - first] = samples[first:]
        self._written[row] += len(samples)

    def close(self, row: int, flush: int) -> None:
        """There is no more audio, and ``flush`` zeros follow."""
        self._end[row] = self._written[row] + flush

    def take(self) -> Chunks:
        """The next chunk of every row that is ready."""
        size = self._ring.shape[2]
        # Fresh arrays: a streaming state may keep views of what it was given.
        wav = np.zeros((len(self._ring), size), dtype=np.float32)
        lens = np.zeros(len(self._ring), dtype=np.int64)
        final = np.zeros(len(self._ring), dtype=np.bool_)
        ready = self.ready
        rows = np.flatnonzero(ready)
        wav[rows] = self._ring[rows, self._taken[rows] // size % self._ring.shape[1]]
        audio = self._written[rows] - self._taken[rows]
        ends = rows[audio < size]  # what lies behind the audio in the ring is of earlier chunks
        wav[ends] = np.where(np.arange(size) < (self._written - self._taken)[ends, None], wav[ends], np.float32(0))
        ended = self._end[rows] >= 0
        waiting = np.where(ended, self._end[rows] - self._taken[rows], audio)
        lens[rows] = np.minimum(waiting, size)
        # A last chunk that is full goes first as an ordinary one, whether or not it was taken before the input was over.
        final[rows] = ended & (waiting < size)
        self._taken[rows] += lens[rows]
        self._open[final] = False
        return Chunks(wav, lens, final, ready)
