"""Several processes that train one system together, each on its own batches: how they join, and how they end.

A launcher starts them and says in the environment who each is: ``torchrun``, on as many machines as there are, or
:func:`launch` on this one. They join by ``torch.distributed``: gloo on the CPU, NCCL on accelerators.
"""

import ctypes
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from reallm.errors import InputError

TIMEOUT = timedelta(hours=2)  # for which processes wait for each other: the first one validates alone
GRACE = 10.0  # seconds in which a launcher notices that one of its processes has ended, and ends the others
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def launched() -> bool:
    """Whether a launcher started this process, by the variables that SpeechBrain's Brain also goes by."""
    return "RANK" in os.environ and "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Whether this process speaks for all, which is known before they join."""
    return not launched() or os.environ["RANK"] == "0"


def local_rank() -> int:
    """This process's number among those on this machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def rank() -> int:
    """This process's number among those that have joined; 0 when it trains alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes have joined; 1 for one that trains alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _has_lost_others(error: Exception) -> bool:
    """Whether ``error`` is what a collective operation raises when another process has ended. Gloo's has no type of its own."""
    return isinstance(error, RuntimeError) and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def _is_first_to_fail(store: distributed.Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the process that holds the store has ended
        return False


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the others where a launcher started this process; a process alone goes on as it is.

    The first one to fail raises its error; the others, which fail for the same reason or because they wait for it, leave in
    silence, so that users read one error.

    Args:
        device: "cpu" or "cuda:NUMBER".

    Raises InputError when the others are lost.
    """
    if not launched():
        yield
        return
    # A launcher that is killed ends nothing: its processes would train on, and hold the folder.
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    store, number, size = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    if device != "cpu":
        torch.cuda.set_device(device)
    distributed.init_process_group("gloo" if device == "cpu" else "nccl", store=store, rank=number, world_size=size, timeout=TIMEOUT)
    try:
        try:
            yield
        except Exception as error:
            lost = _has_lost_others(error)
            if not lost and _is_first_to_fail(store):
                raise
            time.sleep(GRACE)
            if not lost or not _is_first_to_fail(store):
                raise SystemExit(1) from None
            raise InputError(
                f"process {number} of {size} lost the others ({str(error).splitlines()[0]}): what ended them is said where they ran; "
                "start all with the same command to go on"
            ) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the launcher, which is interrupted too, says so
    distributed.destroy_process_group()


def _ended(signals: set[int], processes: int) -> InputError:
    name = signal.Signals(min(signals)).name
    memory = ", most often because memory ran out" if signal.SIGKILL in signals else ""
    return InputError(f"one of {processes} training processes was ended by {name}{memory}: the same command goes on from its checkpoint")


def launch(processes: int, command: Sequence[str]) -> None:
    """Run ``command`` in so many processes on this machine and wait for them; one that fails ends the others.

    Leaves by SystemExit when one failed and has said why.

    Raises InputError when one was killed, KeyboardInterrupt when this process is interrupted.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    logging.disable(logging.CRITICAL)  # what the launcher thinks of a failure comes on top of what the process said
    try:
        with tempfile.TemporaryDirectory() as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                logs_specs=DefaultLogsSpecs(folder),
                run_id=f"reallm-{os.getpid()}",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                max_restarts=0,
            )
            elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if 2 in codes:
            raise SystemExit(2) from None
        killed = {-code for code in codes if code < 0 and code != -signal.SIGTERM}
        if killed:
            raise _ended(killed, processes) from None
        raise SystemExit(1) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    finally:
        logging.disable(logging.NOTSET)
