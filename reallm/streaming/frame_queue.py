"""A queue of frames a row: fixed capacity, first in first out, no copies when it advances."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reallm.streaming.state import StreamingState


@dataclass
class FrameQueue(StreamingState):
    """A ring of Q frames a row, of which ``count`` from ``start`` on wait."""

    frames: Tensor  # (B, Q, D)
    start: Tensor  # (B,) int64
    count: Tensor  # (B,) int64

    @classmethod
    def allocate(
        cls, batch: int, capacity: int, dim: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "FrameQueue":
        """An empty queue."""
        zero = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(torch.zeros(batch, capacity, dim, device=device, dtype=dtype), zero, zero.clone())

    def push(self, frames: Tensor, lens: Tensor) -> "FrameQueue":
        """Append the first ``lens[b]`` of frames (B, C, D) to each row, in place. The caller sees to it that count + C <= Q.

        Frames beyond a row's length are written too, into slots that are free: they are overwritten before they are read.
        """
        size = frames.size(1)
        assert size <= self.frames.size(1)
        self.frames.scatter_(1, self._slots(self.start + self.count, size), frames)
        return FrameQueue(self.frames, self.start, self.count + lens)

    def front(self) -> Tensor:
        """(B, D), the frame that has waited longest; anything where none waits."""
        rows = torch.arange(self.frames.size(0), device=self.frames.device)
        return self.frames[rows, self.start]

    def first(self, size: int) -> Tensor:
        """(B, size, D), those that have waited longest, in order; anything where fewer wait."""
        return self.frames.gather(1, self._slots(self.start, size))

    def _slots(self, first: Tensor, size: int) -> Tensor:
        """(B, size, D), the slots from ``first`` (B,) on."""
        slots = (first.unsqueeze(1) + torch.arange(size, device=first.device)) % self.frames.size(1)
        return slots.unsqueeze(2).expand(-1, -1, self.frames.size(2))

    def drop(self, count: Tensor) -> "FrameQueue":
        """Drop the first ``count`` (B,) frames, or one where that is true."""
        return FrameQueue(self.frames, (self.start + count) % self.frames.size(1), self.count - count.long())
