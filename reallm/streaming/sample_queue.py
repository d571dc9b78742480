"""Odd-sized pushes in, chunks of a fixed size out."""

from collections import deque

import numpy as np

from reallm.streaming.resampler import Audio


class SampleQueue:
    """Samples that wait for their chunk, first in first out."""

    def __init__(self) -> None:
        self._pieces: deque[Audio] = deque()
        self._offset = 0  # samples of the first piece that are already taken
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, samples: Audio) -> None:
        """Append samples (S,). They are not copied, so the caller must not write into them afterwards."""
        if len(samples):
            self._pieces.append(samples)
            self._waiting += len(samples)

    def push_zeros(self, samples: int) -> None:
        """Append silence."""
        self.push(np.zeros(samples, dtype=np.float32))

    def take_into(self, chunk: Audio) -> int:
        """Move the oldest samples to the front of ``chunk`` (S_c,), as many as there are and fit; returns how many."""
        filled = 0
        while filled < len(chunk) and self._pieces:
            piece = self._pieces[0]
            taken = min(len(chunk) - filled, len(piece) - self._offset)
            chunk[filled : filled + taken] = piece[self._offset : self._offset + taken]
            filled += taken
            self._offset += taken
            if self._offset == len(piece):
                self._pieces.popleft()
                self._offset = 0
        self._waiting -= filled
        return filled
