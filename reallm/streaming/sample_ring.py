"""The audio of many streams: written in pieces, by row or in many rows at once, and taken in chunks, all rows of a group at once.

B rows in groups of G, S_c samples of a chunk.
"""

from typing import Any, NamedTuple

import numpy as np

from reallm.streaming.resampler import Audio

Integers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Some = int | slice | Integers  # rows


class Chunks(NamedTuple):
    """What one step of a system takes in."""

    wav: Audio  # (G, S_c)
    lens: Integers  # (G,), 0 = this row has nothing now
    final: Mask  # (G,), the row's last chunk
    rows: Mask  # (G,), the rows that take part

    def of(self, rows: Mask) -> "Chunks":
        """The same for ``rows`` (G,) alone: the others have nothing now."""
        return Chunks(np.where(rows[:, None], self.wav, np.float32(0)), np.where(rows, self.lens, 0), self.final & rows, rows)


class SampleRing:
    """A ring of samples a row, allocated once. Streams begin and end in rows; the zeros that flush a stream are not stored.

    A row's samples are taken by whole chunks until its last one, so that a chunk is never in two pieces.

    Args:
        rows: B.
        chunk: S_c.
        capacity: samples that a row has room for, at least.
        group: G, which divides B: row b is of group b // G. Default: B.
    """

    def __init__(self, rows: int, chunk: int, capacity: int, group: int | None = None) -> None:
        size = group or rows
        assert rows % size == 0
        self._ring = np.zeros((rows, -(-capacity // chunk) + 1, chunk), dtype=np.float32)
        self._written = np.zeros(rows, dtype=np.int64)  # samples since the stream began
        self._taken = np.zeros(rows, dtype=np.int64)
        self._end = np.full(rows, -1, dtype=np.int64)  # samples of the whole stream and its flush; -1 = it goes on
        self._open = np.zeros(rows, dtype=np.bool_)  # of a stream whose last chunk was not taken yet
        self._goes_on = np.zeros(rows, dtype=np.bool_)  # wants a step, with a chunk or without
        self._full = np.zeros(rows, dtype=np.bool_)  # wants no chunk in it
        self._since = np.zeros(rows, dtype=np.int64)  # when a row that wants a step began to, or had its last one, in events
        self._events = 0
        self._chunks = Chunks(
            np.zeros((size, chunk), dtype=np.float32),
            np.zeros(size, dtype=np.int64),
            np.zeros(size, dtype=np.bool_),
            np.zeros(size, dtype=np.bool_),
        )

    @property
    def capacity(self) -> int:
        """Samples that a row has room for."""
        return self._ring.shape[1] * self._ring.shape[2]

    @property
    def listening(self) -> Mask:
        """(B,) bool: the rows whose audio goes on."""
        return self._open & (self._end < 0)

    @property
    def wanting(self) -> Mask:
        """(B,) bool: the rows that want a step, since they are ready, or go on without a chunk."""
        wanting: Mask = self._wanting(slice(None))
        return wanting

    def _ready(self, rows: Some) -> Any:
        """Those of ``rows`` that have a whole chunk, or a last one, and want it."""
        ended = self._end[rows] >= 0
        return self._open[rows] & ~self._full[rows] & (ended | (self._written[rows] - self._taken[rows] >= self._ring.shape[2]))

    def _wanting(self, rows: Some) -> Any:
        return self._ready(rows) | self._goes_on[rows]

    def wants(self, row: int) -> bool:
        """``wanting`` of one row."""
        return bool(self._wanting(row))

    def oldest(self) -> int | None:
        """The group that is next: that of the row which waits longest since it began to want a step, or since its last one.

        So a row with many chunks waits, before each, for all others that want a step: no group waits for more than one turn of each other
        one. None where no row wants one.
        """
        wanting = self.wanting
        if not wanting.any():
            return None
        return int(np.where(wanting, self._since, self._events + 1).argmin()) // len(self._chunks.rows)

    def go_on(self, group: int, pending: Mask, full: Mask) -> None:
        """After a step: the rows (G,) of the group that want another one, with a chunk or without, and those that want no chunk in it."""
        rows = slice(group * len(pending), (group + 1) * len(pending))
        self._goes_on[rows], self._full[rows] = pending, full

    def waiting(self, row: int) -> int:
        """Samples of a row that were written and not taken, the flush not counted."""
        return max(0, int(self._written[row] - self._taken[row]))  # of the flush some may have been taken

    def waiting_in(self, rows: Integers) -> Integers:
        """``waiting`` of rows (N,)."""
        waiting: Integers = np.maximum(self._written[rows] - self._taken[rows], 0)
        return waiting

    def written(self, row: int) -> int:
        """Samples of the row's stream since it began, the flush not counted."""
        return int(self._written[row])

    def begin(self, row: int) -> None:
        """A new stream in a row."""
        self._written[row] = self._taken[row] = 0
        self._end[row] = -1
        self._open[row] = True
        self._goes_on[row] = self._full[row] = False

    def leave(self, row: int) -> None:
        """Nothing more is taken of the row."""
        self._open[row] = self._goes_on[row] = False

    def write(self, row: int, samples: Audio) -> None:
        """Append samples (S,), which the caller knows to fit."""
        assert self.waiting(row) + len(samples) <= self.capacity
        wanted = self.wants(row)
        line = self._ring[row].reshape(-1)
        begin = int(self._written[row]) % len(line)
        first = min(len(samples), len(line) - begin)
        line[begin : begin + first] = samples[:first]
        line[: len(samples) - first] = samples[first:]
        self._written[row] += len(samples)
        if not wanted and self.wants(row):
            self._stand_in_line(np.array([row]))

    def write_many(self, rows: Integers, samples: Audio, counts: Integers) -> None:
        """Append to rows (N,), all different, the first ``counts`` (N,) of samples (N, S): N times ``write``, without Python for each."""
        assert (self.waiting_in(rows) + counts <= self.capacity).all()
        wanted = self._wanting(rows)
        lines, size = self._ring.reshape(len(self._ring), -1), samples.shape[1]
        begin = self._written[rows] % lines.shape[1]
        whole = (counts == size) & (begin + size <= lines.shape[1])
        if whole.any():  # pieces that lie in one are copied as such, with no index a sample
            places = np.lib.stride_tricks.sliding_window_view(lines, size, axis=1, writeable=True)
            places[rows[whole], begin[whole]] = samples[whole]
        parts = np.flatnonzero(~whole)
        if len(parts):
            index, column = np.nonzero(np.arange(size) < counts[parts, None])
            piece = parts[index]
            lines[rows[piece], (begin[piece] + column) % lines.shape[1]] = samples[piece, column]
        self._written[rows] += counts
        self._stand_in_line(rows[self._wanting(rows) & ~wanted])

    def _stand_in_line(self, rows: Integers) -> None:
        self._since[rows] = self._events + np.arange(1, len(rows) + 1)
        self._events += len(rows)

    def close(self, row: int, flush: int) -> None:
        """There is no more audio, and ``flush`` zeros follow."""
        wanted = self.wants(row)
        self._end[row] = self._written[row] + flush
        if not wanted:
            self._stand_in_line(np.array([row]))

    def take(self, group: int = 0) -> Chunks:
        """The next chunk of every row of the group that is ready, in buffers that the next call writes into again."""
        wav, lens, final, ready = self._chunks
        first, size = group * len(ready), self._ring.shape[2]
        ready[:] = self._ready(slice(first, first + len(ready)))
        here = np.flatnonzero(ready)
        rows = first + here
        self._stand_in_line(first + np.flatnonzero(self._wanting(slice(first, first + len(ready)))))
        wav[~ready], lens[:], final[:] = 0, 0, False
        wav[here] = self._ring[rows, self._taken[rows] // size % self._ring.shape[1]]
        audio = self.waiting_in(rows)
        short = audio < size  # what lies behind the audio in the ring is of earlier chunks
        wav[here[short]] = np.where(np.arange(size) < audio[short, None], wav[here[short]], np.float32(0))
        ended = self._end[rows] >= 0
        waiting = np.where(ended, self._end[rows] - self._taken[rows], audio)
        lens[here] = np.minimum(waiting, size)
        # A last chunk that is full goes first as an ordinary one, whether or not it was taken before the input was over.
        final[here] = ended & (waiting < size)
        self._taken[rows] += lens[here]
        self._open[rows[final[here]]] = False
        return self._chunks
