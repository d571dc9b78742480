"""Work for shards of numbers that says who did it, waits, and dies when told to."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reallm.errors import InputError


@dataclass
class Squares:
    """The square of each number. A note in ``notes`` for each shard that is done, with the process that did it.

    Args:
        dies: a worker with this number in its shard is killed, the first time (so often).
        refuses: this number is bad input.
        waits: seconds that a shard takes.
    """

    notes: Path
    dies: int | None = None
    times: int = 1
    refuses: int | None = None
    waits: float = 0.0

    def __call__(self, items: Sequence[int], tick: Callable[[int], None]) -> list[Any]:
        for number in items:
            if number == self.refuses:
                raise InputError(f"number {number} is bad: leave it out")
            deaths = len(list(self.notes.glob("died-*")))
            if number == self.dies and deaths < self.times:
                (self.notes / f"died-{deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            tick(1)
        time.sleep(self.waits)
        (self.notes / f"done-{items[0]:03d}-{time.monotonic_ns()}").write_text(str(os.getpid()))
        return [number * number for number in items]
