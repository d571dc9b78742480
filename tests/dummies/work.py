"""Work for shards of numbers that says who did it, waits, and dies when told to; and other work whose worker is killed in its middle."""

import importlib
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


def kill_a_worker(address: str, module: str, function: str, call: int, died: Path) -> None:
    """Of the workers of the dask scheduler at ``address``, the first that calls a function for the ``call``-th time is killed by it.

    Args:
        module, function: where the function is looked up when it is called.
        died: a file that is there then.
    """
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # one that was killed before comes back
        client.run(_arm, module, function, call, died)


def _arm(module: str, function: str, call: int, died: Path) -> None:
    where = importlib.import_module(module)
    original, calls = getattr(where, function), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            try:
                died.touch(exist_ok=False)
            except FileExistsError:  # it was another
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(where, function, deadly)
