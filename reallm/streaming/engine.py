"""Many streams on one machine: slots with states allocated once, which streams join and leave at any time.

::

    with Engine(system, slots=64) as engine:  # a worker thread decodes
        stream = engine.stream()
        stream.push(samples, sample_rate)  # from any thread; asyncio: engine_async.py
        print(stream.result().text)
        print(stream.finish().text)

Slots lie in groups of G. A step of the system takes the next chunk of every stream of a group that has one (*continuous batching*):
while it runs, pushes write audio into the ring for later ones, and streams that come late, rest or leave hold nobody up. The next step is
of the group that waits longest since it began to want one, or since its last one, so that a step computes few rows that rest, no group
waits for all others to be ready, and none waits for more than one step of each. Where streams bring more than the machine decodes, their
queues fill up to a bound, and ``push`` waits: the delay of a live stream is bounded by it.

::

    join    the group with the stream's phase ─► a slot, which is a row             FreeSlots
    push    as_mono, resample (the pusher's thread) ─► row of the ring (B, R)       Intake, SampleRing
    step    chunks of a group's ready rows ─► system.step ─► one read-back          BatchedStep
            ─► words of the rows that spoke; those that wait are told               Listener, EngineStream

Rows are independent: with equal G and device, what a stream gets in a row of its group is equal to the bit whatever the others do, since
all groups have G rows, the last one too; its text is that of a :class:`~reallm.streaming.recognizer.Recognizer`. What goes wrong with one
stream's audio is that stream's ``error``.

Without ``start`` (or ``with``) there is no worker, and nothing is decoded but by ``step``, ``decode``, and what waits: ``finish`` and
a ``push`` into a full queue.

What is called when a future of the engine is done (``add_done_callback``) runs in the thread that brought it about, mostly the worker,
and holds no lock: it may use the engine and its streams, but in the worker it cannot wait for what the worker is yet to do.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Self, TypeVar, Unpack

import numpy as np
import torch

from reallm.errors import InputError, at_least
from reallm.memory import ran_out
from reallm.protocols import StreamingSystem, System, streams
from reallm.streaming.batched_step import BatchedStep, Heard
from reallm.streaming.engine_push import push_many
from reallm.streaming.engine_slots import FreeSlots
from reallm.streaming.engine_stream import EngineStream, give_back
from reallm.streaming.kept_errors import anew, caused
from reallm.streaming.late_results import LateResults
from reallm.streaming.options import Choices, Chosen, StreamOptions, choose
from reallm.streaming.recognizer import parameter_of
from reallm.streaming.sample_ring import Integers, Mask, SampleRing
from reallm.types import Scored, Seconds

T = TypeVar("T")
RESAMPLED: Seconds = 1.0  # room behind a full queue for what a resampler had held back
POLL: Seconds = 1.0  # how long a worker sleeps at most
GROUP = 8  # G on a processor, where rows cost arithmetic each and share what reading the weights costs: 8 leave little of it to save


class _Group(NamedTuple):
    """Rows that are decoded together."""

    rows: slice  # of all
    batch: BatchedStep
    choices: Choices


class Engine:
    """Decodes up to ``slots`` streams, in groups. Memory is constant but for the transcripts, which grow with what is said, and for the
    phrases of streams: there is room for the most that were there at a time (searchers/_biasing.py, PhraseTable).

    All methods may be called from any thread.

    Args:
        system: a trained system that streams, in eval mode.
        slots: the streams at a time, whose states are allocated here.
        queue: seconds of audio of a stream that may wait to be decoded; a chunk at least.
        max_waiting: how many ``stream()`` may wait for a slot when all are taken; others are refused.
        idle_timeout: a stream that brings nothing for so many seconds is ended, and its words are kept; None = never.
        isolates: whether an exception in one stream's data fails that stream alone, at the cost of memory for the states of one group more,
            and of a copy of the states of the streams that each step decodes; else it fails all streams of its step. Where steps are
            captured, on a CUDA device, it has no effect: no Python runs in them that could raise, and what the device itself reports
            fails all.
        group: G, the slots that are decoded together; all, where there are not so many. Default: 8 on a processor, all on an accelerator,
            where a step costs about the same whatever its rows.
        positions: decoder positions of a step, where search is greedy: a longer response goes on in the next step, so that no stream waits
            for another's; the words are the same. The system's searcher has it from now on. Default: as that has it, which is usually to
            go on until all responses of the step have ended.
        clock: seconds, for the time-out and for the phases of streams.

    Raises InputError for what is no system, does not stream or is in training mode, for numbers out of range, and where the device has no
    memory for so many slots.
    """

    def __init__(
        self,
        system: System,
        slots: int = 8,
        queue: Seconds = 10.0,
        max_waiting: int = 0,
        idle_timeout: Seconds | None = 60.0,
        isolates: bool = True,
        group: int | None = None,
        positions: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.system = _streaming(system)
        at_least(1, slots=slots, group=1 if group is None else group, positions=1 if positions is None else positions)
        at_least(0, queue=queue, max_waiting=max_waiting, idle_timeout=idle_timeout or 0.0)
        if positions is not None:
            _bound(system, positions)
        parameter = parameter_of(system)
        self.slots, self.device = slots, parameter.device
        self._max_waiting, self._idle_timeout, self._clock = max_waiting, idle_timeout, clock
        chunk = self.system.chunk_samples
        self._most = max(chunk, round(queue * system.sample_rate))
        self.group = size = min(slots, group or (GROUP if parameter.device.type == "cpu" else slots))
        rows = -(-slots // size) * size  # B
        self._ring = SampleRing(rows, chunk, self._most + round(RESAMPLED * system.sample_rate), size)
        self._groups: list[_Group] = []
        self._allocate(rows, parameter, isolates)
        self._used, self._fresh, self._awaited = (np.zeros(rows, dtype=np.bool_) for _ in range(3))
        self._generation = np.zeros(rows, dtype=np.int64)  # of the row's stream: what was decoded for another one is dropped
        self._brought_at = np.zeros(rows)
        self._tail_ids, self._tail_lens = np.zeros((rows, 0), dtype=np.int64), np.zeros(rows, dtype=np.int64)
        self._streams: list[EngineStream | None] = [None] * rows
        self._free = FreeSlots(slots, size)
        self._joining: deque[tuple[Future[EngineStream], Chosen | None]] = deque()
        self._lock = threading.Lock()  # of all of the above but the states, and never held while the system steps
        self._turn = threading.Lock()  # of the states: one step at a time
        self._results = LateResults()  # of futures that users hold; entered before any lock
        self._wake = threading.Event()
        self._kept: list[Engine] = []  # itself, while it has streams: see _work
        self._worker: threading.Thread | None = None
        self._over: InputError | None = None

    def _allocate(self, rows: int, parameter: torch.Tensor, isolates: bool) -> None:
        """The groups of ``rows``. Raises InputError where there is no memory for all of them."""
        like: BatchedStep | None = None
        try:
            for row in range(0, rows, self.group):
                like = BatchedStep(self.system, self.group, parameter.device, parameter.dtype, isolates, like)
                self._groups.append(_Group(slice(row, row + self.group), like, Choices(self.group)))
        except RuntimeError as error:
            if not ran_out(error):
                raise
            fitted, half = len(self._groups) * self.group, self.group // 2
            if fitted:
                fix = f"{fitted} fitted, slots={fitted}"
            else:
                fix = f"not one group fitted, group={half}" if half else "not one fitted, another device"
            raise InputError(
                f"not enough memory on {parameter.device} for {self.slots} slots in groups of {self.group}, each of which takes its states "
                f"and what a step of its rows computes: {fix} may do"
            ) from error

    # The worker

    def start(self) -> Self:
        """Decode in a thread from now on, until ``close``, or until nobody has the engine any more and all its streams have ended."""
        with self._lock:
            self._refuse_over()
            if self._worker is None:
                self._worker = threading.Thread(
                    target=_work, args=(weakref.ref(self), self._wake, self._kept), name="reallm-engine", daemon=True
                )
                self._worker.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker and end all streams: what is not decoded yet is dropped."""
        self._end(InputError("the engine was closed"))
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()

    def _end(self, reason: InputError) -> None:
        with self._results, self._lock:
            if self._over is None:
                self._over = reason
            while self._joining:  # first, or they would get the slots of the streams that end
                self._results.give(self._joining.popleft()[0], error=anew(reason))
            for stream in [stream for stream in self._streams if stream is not None]:
                stream._fail(reason)
        self._wake.set()

    def _refuse_over(self) -> None:
        if self._over is not None:
            raise anew(self._over)

    def _step_or_end(self) -> bool:
        """``step`` for the worker. After an error, which is a bug, whoever waits must not wait for ever."""
        try:
            return self.step()
        except Exception as error:
            self._end(caused(f"the engine stopped at an error of its own: {error!r}", error))
            raise

    # Streams that come and go

    @property
    def is_running(self) -> bool:
        """Whether a worker decodes."""
        return self._worker is not None and self._over is None

    @property
    def active(self) -> int:
        """How many slots are taken."""
        return self.slots - len(self._free)

    def stream(self, timeout: Seconds | None = None, **options: Unpack[StreamOptions]) -> EngineStream:
        """A new stream in a free slot, after waiting for one where ``max_waiting`` lets it, ``timeout`` seconds at most.

        ``options`` are its own, see StreamOptions. Raises InputError when all slots are taken and too many wait already, and for options
        that the system cannot keep, TimeoutError after the time-out.
        """
        joining = self.stream_soon(**options)
        try:
            return self._wait(joining, timeout)
        except BaseException:  # KeyboardInterrupt too: nobody would have the stream
            give_back(joining)
            raise

    def stream_soon(self, **options: Unpack[StreamOptions]) -> "Future[EngineStream]":
        """``stream``, as a future. Raises InputError as it does."""
        return self._join(choose(self.system, **options))

    def _join(self, chosen: Chosen | None) -> "Future[EngineStream]":
        joining: Future[EngineStream] = Future()
        with self._results, self._lock:
            self._refuse_over()
            self._joining = deque(waiting for waiting in self._joining if not waiting[0].cancelled())
            if not len(self._free) and len(self._joining) >= self._max_waiting:
                waiting = f", and {len(self._joining)} wait for one" if self._max_waiting else ""
                raise InputError(
                    f"all {self.slots} streams are in use{waiting}: finish() or close() one, or make the engine with more slots, or "
                    "with max_waiting"
                )
            self._joining.append((joining, chosen))
            self._admit()
        return joining

    def _admit(self) -> None:
        while len(self._free) and self._joining:
            joining, chosen = self._joining.popleft()
            if joining.set_running_or_notify_cancel():
                row = self._free.take(self._clock() * self.system.sample_rate / self.system.chunk_samples % 1)
                self._streams[row] = stream = EngineStream(self, row, chosen)
                self._kept[:] = [self]
                self._begin(row, chosen)
                self._results.give(joining, stream)

    def _begin(self, row: int, chosen: Chosen | None) -> None:
        self._ring.begin(row)
        self._generation[row] += 1
        self._fresh[row], self._used[row] = self._used[row], True
        self._groups[row // self.group].choices.put(row % self.group, chosen)
        self._tail_lens[row] = 0
        self._brought_at[row] = self._clock()

    def _release(self, row: int) -> None:
        self._ring.leave(row)
        self._generation[row] += 1
        self._awaited[row] = False
        self._streams[row] = None
        self._free.give_back(row)
        self._admit()
        if not self.active:
            self._kept.clear()

    def _reclaim_idle(self) -> None:
        if self._idle_timeout is not None:
            idle = self._ring.listening & ~self._ring.wanting & (self._clock() - self._brought_at > self._idle_timeout)
            for row in np.flatnonzero(idle).tolist():
                stream = self._streams[row]
                assert stream is not None
                stream._reclaim(self._idle_timeout)

    # Audio of many streams

    def push_many(self, streams: Sequence[EngineStream], wav: Any, sample_rate: int) -> Integers:
        """Push one piece to each of N streams, all different, at once: wav (N, S) or (N, S, channels), of what EngineStream.push takes.

        It does for each stream what ``push`` with ``timeout=0`` does, and never waits. Mono audio at the system's rate is written by
        row all at a time; other audio is resampled one by one.

        Returns (N,) int64, how many of its samples each stream took: all of them, or, where its queue has less room, the first ones that
        fit, and 0 where it is full; the rest is the caller's to push again after some steps.

        Raises InputError for what ``push`` refuses, and names the first stream that it is about; then no stream has taken anything.
        One that ends while another is being resampled takes 0.
        """
        return push_many(self, streams, wav, sample_rate)

    # Decoding

    def decode(self) -> None:
        """Decode all that is ready."""
        while self.step():
            pass

    def step(self) -> bool:
        """Decode one chunk of every stream that has one, in the group that waits longest; False when there was nothing to do.

        Streams whose answers a bounded search has not finished (GreedySearcher.positions) go on in it, with a chunk or without.
        """
        with self._results, self._turn:
            with self._lock:
                self._reclaim_idle()
                oldest = self._ring.oldest()
                if oldest is None:
                    return False
                rows, batch, choices = self._groups[oldest]
                took_part = self._ring.wanting[rows]
                chunks = self._ring.take(oldest)
                self._brought_at[rows][chunks.rows] = self._clock()
                generation, fresh, chosen = self._generation[rows].copy(), self._fresh[rows].copy(), choices.take()
                self._fresh[rows] = False
            if fresh.any():
                batch.renew(fresh)
            if chosen is not None:
                batch.begin(chosen)
            heard, failed = batch(chunks)
            with self._lock:

                def remaining() -> Mask:
                    """(G,): rows whose streams are still those that stepped. One that is told something may leave, and another comes."""
                    same: Mask = took_part & (generation == self._generation[rows])
                    return same

                self._ring.go_on(oldest, batch.pending & remaining(), batch.full & remaining())
                for one in heard:
                    self._deliver(rows, one, remaining())
                for row, error in failed.items():
                    if remaining()[row]:
                        stream = self._streams[rows.start + row]
                        assert stream is not None
                        stream._fail_at(error)
        return True

    def _deliver(self, group: slice, heard: Heard, same: Mask) -> None:
        """Tell the streams of the group's rows in which something happened; no Python runs for the others."""
        rows, took_part = heard.rows, heard.took_part & same
        if rows.tail_ids.shape[1]:
            if not self._tail_ids.shape[1]:
                self._tail_ids = np.zeros((len(self._streams), rows.tail_ids.shape[1]), dtype=np.int64)
            self._tail_ids[group][took_part] = rows.tail_ids[took_part]
            self._tail_lens[group][took_part] = rows.tail_lens[took_part]
        news = (rows.lens > 0) | (rows.cap_hits > 0) | rows.exhausted | rows.is_nan | rows.has_ends | heard.final | self._awaited[group]
        for row in np.flatnonzero(news & took_part).tolist():
            stream = self._streams[group.start + row]
            assert stream is not None
            try:
                stream._hear(rows, row, bool(heard.final[row]))
            except Exception as error:
                stream._fail_at(error)

    def _n_best(self, row: int, emitted: list[int]) -> list[Scored]:
        """The hypotheses of a row that ended with this step, where the system keeps several."""
        return self._groups[row // self.group].batch.n_best(emitted, row % self.group)

    # Waiting

    def _wait(self, future: "Future[T]", timeout: Seconds | None) -> T:
        """The result of ``future``; where there is no worker, the caller does its work. Raises TimeoutError, and the future's error."""
        until = None if timeout is None else time.monotonic() + timeout
        while not (self.is_running or self._results.owes(future) or future.done()):
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"{timeout:g} s went by")
            if not (self.step() or self._results.owes(future) or future.done()):  # in this order: what is owed no more is done
                raise InputError("this would wait for ever, since nothing is ready and the engine has no worker: call start()")
        if threading.current_thread() is self._worker and not future.done():
            raise InputError("the engine's worker calls this, and would wait for itself: wait in another thread")
        error = future.exception(None if until is None else max(0.0, until - time.monotonic()))  # not ``result``: others may get it too
        if isinstance(error, InputError):
            raise anew(error)
        return future.result()


def _work(having: "weakref.ref[Engine]", wake: threading.Event, kept: "list[Engine]") -> None:
    """Decode for as long as somebody has the engine, or it has streams, until it is over.

    ``kept``: the engine while it has streams, for which this thread holds it; whoever is told that there is one sees to that.
    """
    while True:
        wake.clear()
        engine = having()
        if engine is None or engine._over is not None:
            return
        if not engine._step_or_end():
            del engine
            wake.wait(POLL)


def _streaming(system: Any) -> StreamingSystem:
    if not hasattr(system, "recognize"):
        raise InputError(f"an engine needs a system, not a {type(system).__name__}: give it load(PATH), from reallm.bundle")
    if getattr(system, "training", False):
        raise InputError("the system is in training mode: call system.eval() before it is used")
    if not streams(system):
        name = getattr(system, "component_name", type(system).__name__)
        raise InputError(f"system '{name}' recognizes whole utterances and does not stream: use reallm.streaming.offline.OfflineRecognizer")
    return system


def _bound(system: Any, positions: int) -> None:
    searcher: Any = getattr(system, "searcher", None)
    if not hasattr(searcher, "positions"):
        name = getattr(searcher or system, "component_name", type(searcher or system).__name__)
        raise InputError(f"positions {positions}: a step of '{name}' cannot be bounded, only one of greedy search: leave it out")
    searcher.positions = positions
