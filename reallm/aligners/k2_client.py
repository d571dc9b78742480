"""Finds k2 and runs it: in this process, or in one long-lived worker process of an interpreter that has it."""

import atexit
import contextlib
import functools
import importlib.util
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

import reallm
from reallm.aligners import k2_worker
from reallm.aligners.path import NO_LABEL
from reallm.errors import InputError

PYTHON_VARIABLE = "REALLM_K2_PYTHON"
HOW_TO_GET = "get it with tools/install_k2.sh, or name a Python that has it in $" + PYTHON_VARIABLE
WORKER = Path(k2_worker.__file__)


class K2Missing(Exception):
    """No k2 was found; the message says why."""


class InProcess:
    """k2 in this interpreter. Raises K2Missing when it is not installed or does not fit this torch."""

    def __init__(self) -> None:
        if importlib.util.find_spec("k2") is None:
            raise K2Missing("no k2 in this environment")
        try:
            self.version = k2_worker.k2_version()
        except (ImportError, OSError) as error:
            raise K2Missing(f"k2 does not fit this environment's torch ({error})") from None

    def call(self, method: str, *arrays: Any) -> Any:
        """One of :data:`reallm.aligners.k2_worker.METHODS`, flattened."""
        return k2_worker.METHODS[method](*arrays).reshape(-1)


class Worker:
    """k2 in another interpreter. The process starts at once, serves until ``close``, and is closed at exit.

    Raises K2Missing when that interpreter cannot import k2.
    """

    def __init__(self, python: Path) -> None:
        self.python = python
        self._lock = threading.Lock()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._owner = os.getpid()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        try:
            # Isolated (-I): else the modules beside the script would hide libraries of the same name.
            self._process = subprocess.Popen(
                [str(python), "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
            )
        except OSError as error:
            raise K2Missing(f"{python} cannot be run ({error.strerror})") from None
        atexit.register(self.close)
        try:
            self.version = self._answer().decode()
        except InputError:
            raise K2Missing(f"{python} has no k2 that works ({self._last_words()})") from None

    @property
    def alive(self) -> bool:
        """The process runs, and belongs to this one: a forked child must not share its parent's pipes."""
        return self._process.poll() is None and self._owner == os.getpid()

    def call(self, method: str, *arrays: Any) -> Any:
        """One of :data:`reallm.aligners.k2_worker.METHODS`, flattened. Raises InputError when the worker has died or failed."""
        with self._lock:
            assert self._process.stdin is not None
            try:
                k2_worker.write_request(self._process.stdin, method, arrays)
            except (BrokenPipeError, ValueError):
                raise self._died() from None
            return np.frombuffer(self._answer(), "<i8")

    def close(self) -> None:
        """End the process. Nothing to do in a forked child, whose parent goes on using it."""
        if self._owner != os.getpid():
            return
        with contextlib.suppress(BrokenPipeError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        atexit.unregister(self.close)

    def _answer(self) -> bytes:
        sink = self._process.stdout
        assert sink is not None
        header = sink.read(k2_worker.ANSWER.size)
        if len(header) < k2_worker.ANSWER.size:
            raise self._died()
        magic, status, size = k2_worker.ANSWER.unpack(header)
        assert magic == k2_worker.MAGIC, magic
        payload = sink.read(size)
        if len(payload) < size:
            raise self._died()
        if status:
            raise InputError(f"k2 failed ({payload.decode()}): align with --backend torch")
        return payload

    def _died(self) -> InputError:
        status = self._process.wait()
        return InputError(
            f"the k2 worker ({self.python}) died with exit status {status} ({self._last_words()}): "
            "run again with --backend torch, or install k2 anew with tools/install_k2.sh"
        )

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def candidate_pythons() -> list[Path]:
    """Interpreters that may have k2, in the order of trying: the named one, else that of the clone's side environment."""
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return [Path(named)]
    side = Path(reallm.__file__).parents[1] / ".venv-k2" / "bin" / "python"
    return [side] if side.exists() else []


def connect() -> InProcess | Worker:
    """k2, wherever it is: this process, $REALLM_K2_PYTHON, the clone's .venv-k2. One connection serves the whole process.

    Raises K2Missing when there is none, InputError when the interpreter that the user named has none.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    found = _search(named)
    if isinstance(found, Worker) and not found.alive:
        _search.cache_clear()
        found = _search(named)
    if isinstance(found, K2Missing):
        raise found
    return found


@functools.lru_cache(maxsize=1)
def _search(named: str | None) -> InProcess | Worker | K2Missing:
    reasons = []
    try:
        return InProcess()
    except K2Missing as missing:
        reasons.append(str(missing))
    for python in candidate_pythons():
        try:
            return Worker(python)
        except K2Missing as missing:
            if named:
                raise InputError(f"${PYTHON_VARIABLE}: {missing}: name a Python that has k2, or unset it") from None
            reasons.append(str(missing))
    return K2Missing("; ".join(reasons))


def k2_labels(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """:func:`reallm.aligners.viterbi.viterbi_labels` by k2. Raises K2Missing."""
    scores = log_probs.detach().cpu().float().numpy()
    found = connect().call("labels", scores, lens.cpu().numpy(), tokens[tokens != NO_LABEL].numpy(), token_lens.numpy())
    return torch.from_numpy(np.array(found)).view(log_probs.shape[:2])


def k2_emissions(blank: Tensor, token: Tensor, lens: Tensor, token_lens: Tensor) -> Tensor:
    """:func:`reallm.aligners.lattice.viterbi_emissions` by k2. Raises K2Missing."""
    scores = [each.detach().cpu().float().numpy() for each in (blank, token)]
    found = connect().call("emissions", *scores, lens.cpu().numpy(), token_lens.cpu().numpy())
    return torch.from_numpy(np.array(found)).view(token.size(0), token.size(2))
