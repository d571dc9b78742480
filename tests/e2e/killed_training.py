"""Trains in child processes, some of which kill themselves with SIGKILL at a given place.

    python killed_training.py PROCESSES CONF EXP PLACE:COUNT[@RANK] … [-- PROCESSES CONF EXP …]

Places: ``batch`` (before the loss of that batch), ``save`` (in the middle of writing that file of a checkpoint),
``fsync``, ``rename`` (before that call), ``never``; counted in the child of that rank from 1. Of several processes the others are
killed too, as a launcher does. Children are forked after the imports, which take longer than the training.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from itertools import groupby
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(rank: int, processes: int, port: int, conf: str, exp: str, kill: str) -> int:
    child = os.fork()
    if child == 0:
        if processes > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in names.items()})
        place, _, where = kill.partition("@")
        if int(where or 0) == rank:
            place, count = place.split(":")
            arm(place, int(count))
        run_training(Path(conf), Path(exp), device="cpu", progressbar=False)
        os._exit(0)
    return child


def train(processes: int, conf: str, exp: str, kill: str) -> str:
    port = free_port()
    children = {start(rank, processes, port, conf, exp, kill) for rank in range(processes)}
    died = False
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not died:
            died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            for other in children:
                os.kill(other, signal.SIGKILL)
            if not died:
                return f"failed with status {status}"
    return "killed" if died else "finished"


def main(arguments: list[str]) -> None:
    for between, job in groupby(arguments, key=lambda argument: argument == "--"):
        if not between:
            processes, conf, exp, *kills = job
            for kill in kills:
                print(kill, train(int(processes), conf, exp, kill), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
