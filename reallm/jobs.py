"""Many items, many processes: items in shards, a file for each shard that is done, results in the order of the items.

A shard holds the same items whoever does it, so that the result does not depend on how many do. It is computed in this process, in
several of this machine, or by the workers of a dask cluster; where a worker dies, dask gives its shard to another. This process alone
writes these files, each whole or not at all: a run that was stopped goes on, and nothing comes twice. CONTRIBUTING.md says
why lhotse is not given a dask client as its executor instead.
"""

import gzip
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reallm import __version__
from reallm.data.files import atomic_write
from reallm.errors import InputError

PATIENCE = 30  # seconds for a cluster to answer, and to have workers again
STAMP, WORK = "run.json", "work.pickle"

Tick = Callable[[int], None]  # is told how many items were just done
Work = Callable[[Sequence[Any], Tick], Any]  # the items of a shard → what JSON can hold; it and the items can be pickled
Pool = tuple[Callable[..., Future[Any]], Callable[[], int]]  # Executor.submit of it; how many shards may be under way in it


@dataclass(frozen=True)
class Workers:
    """Who works: ``jobs`` processes of this machine (one: this process itself), or the workers of the dask scheduler at ``dask``.

    Processes share the threads that torch would use here.

    Raises InputError where both are asked for.
    """

    jobs: int = 1
    dask: str | None = None

    def __post_init__(self) -> None:
        if self.dask is not None and self.jobs != 1:
            raise InputError(f"--jobs {self.jobs} and --dask {self.dask}: choose one, a cluster has its own number of workers")


ALONE = Workers()


def in_shards(
    work: Work,
    items: Sequence[Any],
    size: int,
    folder: Path,
    key: Mapping[str, Any],
    workers: Workers = ALONE,
    tick: Tick = lambda count: None,
    there: Callable[[Any], bool] = lambda item: True,
) -> "Results":
    """What ``work`` makes of each shard of ``items``, in order, when all are done.

    Args:
        work: sent to other processes once, with all that it holds, such as a model.
        size: items of a shard.
        folder: for the results; of a run that was stopped, those with the same ``key`` are taken. To be removed by the caller, when
            what is made of them is written. A dask cluster's workers must be able to read it.
        key: what the results depend on, for JSON.
        tick: is told how many items are done.
        there: whether what ``work`` left of an item outside of ``folder`` is there still; where it is not, the shard is done again.

    Raises what ``work`` raises, and InputError for processes that were killed and a cluster that is not there. What was finished stays.
    """
    _open(folder, {**key, "reallm": __version__, "items": len(items), "size": size})
    shards = {folder / f"{first:09d}.json.gz": items[first : first + size] for first in range(0, len(items), size)}
    missing = {file: shard for file, shard in shards.items() if not (file.exists() and all(map(there, shard)))}
    tick(len(items) - sum(map(len, missing.values())))
    try:
        _do(work, missing, folder, workers, tick)
    except BaseException:
        if not any(file.exists() for file in shards):
            shutil.rmtree(folder)
        raise
    return Results(list(shards))


@dataclass(frozen=True)
class Results:
    """Those of all shards, read from their files each time."""

    files: Sequence[Path]

    def __iter__(self) -> Iterator[Any]:
        return (json.loads(gzip.decompress(file.read_bytes())) for file in self.files)


def _open(folder: Path, key: dict[str, Any]) -> None:
    """Make the folder, emptied where it belongs to another run."""
    try:
        same = json.loads((folder / STAMP).read_text(encoding="utf-8")) == json.loads(json.dumps(key))
    except (OSError, ValueError):
        same = False
    if folder.exists() and not same:
        shutil.rmtree(folder)
    with atomic_write(folder / STAMP) as file:
        json.dump(key, file)


def _packed(result: Any) -> bytes:
    return gzip.compress(json.dumps(result, ensure_ascii=False).encode(), compresslevel=4, mtime=0)


def _write(file: Path, packed: bytes) -> None:
    with atomic_write(file, "wb") as sink:
        sink.write(packed)


def _do(work: Work, missing: Mapping[Path, Sequence[Any]], folder: Path, workers: Workers, tick: Tick) -> None:
    jobs = min(workers.jobs, len(missing))
    if workers.dask is None and jobs <= 1:
        for file, shard in missing.items():
            _write(file, _packed(work(shard, tick)))
        return
    if not missing:
        return
    pickled = pickle.dumps(work)
    _write(folder / WORK, pickled)
    stored, digest = (folder / WORK).resolve(), hashlib.sha256(pickled).hexdigest()
    waiting = iter(missing.items())
    running: dict[Future[bytes], Path] = {}
    with _cluster(workers.dask) if workers.dask is not None else _processes(jobs) as (submit, room):
        while True:
            for file, shard in islice(waiting, max(0, room() - len(running))):
                running[submit(_shard, stored, digest, shard)] = file
            if not running:
                return
            done, _ = wait(running, timeout=PATIENCE, return_when=FIRST_COMPLETED)
            # Those that failed last: they end the run, and the others are to be kept.
            for future in sorted(done, key=lambda each: each.cancelled() or each.exception() is not None):
                file = running.pop(future)
                _write(file, future.result())
                tick(len(missing[file]))


# In a worker: the work it does, kept from one shard to the next, and its digest.
_kept: tuple[str, Work] | None = None
_alone = threading.Lock()  # a dask worker may have several threads, torch uses as many as it has in any case


def _shard(stored: Path, digest: str, items: Sequence[Any]) -> bytes:
    global _kept
    with _alone:
        if _kept is None or _kept[0] != digest:
            try:
                _kept = digest, pickle.loads(stored.read_bytes())
            except FileNotFoundError:
                raise InputError(
                    f"the worker on {socket.gethostname()} does not see {stored}: give an --out on a file system that all machines share"
                ) from None
        return _packed(_kept[1](items, lambda count: None))


@contextmanager
def _processes(jobs: int) -> Iterator[Pool]:
    """So many processes of this machine, which share the threads that torch would use here, and end with this one.

    Raises InputError when one of them was killed.
    """
    import torch

    others = set(multiprocessing.active_children())
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (threads,))
    try:
        yield pool.submit, lambda: 2 * jobs
    except BrokenProcessPool:
        raise InputError(
            f"one of {jobs} processes was killed, for lack of memory perhaps: start the same command again, with fewer --jobs; "
            "what is done is kept"
        ) from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    """At the start of a process: the one that began it decides when it ends, also by its own end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)  # of torch when it is loaded, and of k2's process
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _cluster(address: str) -> Iterator[Pool]:
    from distributed import Client, KilledWorker
    from distributed.comm import resolve_address

    try:
        resolve_address(address)  # a client that cannot do this ends with an error, and never ends
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there ({' '.join(str(error).split())}): start `dask scheduler`, and name the address "
            "that it prints, such as tcp://host:8786"
        ) from None
    with client:

        def room() -> int:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError:
                raise InputError(
                    f"--dask {address}: no workers for {PATIENCE} s: start `dask worker {address} --nthreads 1`, and the same command "
                    "again; what is done is kept"
                ) from None
            return 2 * len(client.nthreads())

        def submit(*call: Any) -> Future[bytes]:
            found: Future[bytes] = Future()

            def pass_on(remote: Any) -> None:
                try:
                    found.set_result(remote.result())
                except BaseException as error:
                    found.set_exception(error)

            # Not the client's own executor: its futures stay open where the scheduler goes away.
            client.submit(*call, pure=False).add_done_callback(pass_on)
            return found

        try:
            yield submit, room
        except KilledWorker as killed:
            raise InputError(
                f"--dask {address}: one shard killed {killed.allowed_failures + 1} workers, for lack of memory perhaps: start the same "
                "command again, with workers that have more; what is done is kept"
            ) from None
        except CancelledError:
            raise InputError(
                f"--dask {address}: the scheduler went away: start the same command again when it is back; what is done is kept"
            ) from None
