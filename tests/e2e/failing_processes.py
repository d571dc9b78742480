"""Launches two processes that fail in a given way, and says how the launch ended.

python failing_processes.py WAY …
"""

import os
import signal
import sys
import time
from pathlib import Path

from torch import distributed

from reallm.errors import InputError
from reallm.training.processes import joined, launch


def fail(way: str) -> None:
    """In a process that was launched."""
    try:
        with joined("cpu"):
            distributed.barrier()
            mine = distributed.get_rank() == 1
            if way == "alike" or (way == "one" and mine):
                raise InputError("broken audio")
            if way == "killed" and mine:
                os.kill(os.getpid(), signal.SIGKILL)
            if way == "interrupted" and mine:
                os.kill(os.getppid(), signal.SIGINT)
            if way == "orphaned" and mine:
                os.kill(os.getppid(), signal.SIGKILL)
            if way in ("interrupted", "orphaned") and mine:
                time.sleep(5)
                print(f"{way}: lived on", flush=True)
            distributed.barrier()
    except InputError as error:
        print(f"said: {error}", flush=True)
        raise SystemExit(2) from None


def main(ways: list[str]) -> None:
    for way in ways:
        ended = "well"
        try:
            launch(2, [sys.executable, str(Path(__file__).resolve()), "--fail", way])
        except (InputError, KeyboardInterrupt, SystemExit) as error:
            ended = f"{type(error).__name__} {error}"
        print(f"{way}: {ended}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--fail":
        fail(sys.argv[2])
    else:
        main(sys.argv[1:])
