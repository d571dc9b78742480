"""Trains in one child process after another, each of which kills itself with SIGKILL at a given place.

    python killed_training.py CONF EXP PLACE:COUNT …

Places: ``batch`` (before the loss of that batch), ``save`` (in the middle of writing that file of a checkpoint),
``fsync``, ``rename`` (before that call), ``never``; counted in the child from 1. Children are forked after the imports, which take
longer than the training.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reallm.training.experiment import run_training
from tests.dummies.training import TinySystem


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(count: int, function: Callable[..., Any], last_words: Callable[..., None] = lambda *a, **k: None) -> Callable[..., Any]:
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            last_words(*args, **kwargs)
            die()
        return function(*args, **kwargs)

    return counted


def half_a_file(state: Any, file: Any) -> None:
    file.write(b"half of it")
    file.flush()


def arm(place: str, count: int) -> None:
    if place == "batch":
        TinySystem.loss = die_at(count, TinySystem.loss)  # type: ignore[method-assign]
    elif place == "save":
        torch.save = die_at(count, torch.save, half_a_file)
    elif place != "never":
        setattr(os, place, die_at(count, getattr(os, place)))


def main(conf: str, exp: str, *kills: str) -> None:
    for kill in kills:
        child = os.fork()
        if child == 0:
            place, count = kill.split(":")
            arm(place, int(count))
            run_training(Path(conf), Path(exp), progressbar=False)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(kill, "killed" if died else "finished" if status == 0 else f"failed with status {status}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
