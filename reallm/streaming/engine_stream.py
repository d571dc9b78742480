"""One stream of the engine, as its user holds it."""

import math
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from reallm.errors import InputError
from reallm.streaming.audio_input import as_mono
from reallm.streaming.intake import Intake
from reallm.streaming.kept_errors import anew, caused
from reallm.streaming.listener import NAN_SCORES, Listener, Partial, at_capacity
from reallm.streaming.options import Chosen
from reallm.streaming.readback import Rows
from reallm.streaming.resampler import Audio
from reallm.types import Hypothesis, Seconds

if TYPE_CHECKING:
    from reallm.streaming.engine import Engine


class EngineStream:
    """One stream of audio. Made by ``Engine.stream``; all methods may be called from any thread.

    It holds a slot until all of it is decoded after ``finish``, until ``close``, until it has an ``error``, or until it has brought
    nothing for the engine's time-out, which is also when one that nobody refers to any more gives its slot back. As a context
    manager it is closed at the end. Its words remain readable in any case.
    """

    def __init__(self, engine: "Engine", row: int, chosen: Chosen | None) -> None:
        self._engine = engine
        self._chosen = chosen
        self._row: int | None = row
        self._input = threading.Lock()  # of the resampler; taken before the engine's lock
        self._intake = Intake(engine.system.sample_rate)
        self._listener = Listener(engine.system)
        self._input_over = False
        self._epoch = 0  # resets so far
        self._error: InputError | None = None
        self._reclaimed: InputError | None = None
        self._final: Future[Hypothesis] = Future()
        self._waiters: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def accepted(self) -> Seconds:
        """Seconds of audio accepted so far."""
        return self._intake.accepted

    @property
    def waiting(self) -> Seconds:
        """Seconds of audio that were accepted and wait to be decoded.

        Not counted are what a resampler holds back, the silence that is added at the end, and answers that a bounded search still owes.
        """
        with self._engine._lock:
            return 0.0 if self._row is None else self._engine._ring.waiting(self._row) / self._engine.system.sample_rate

    @property
    def is_final(self) -> bool:
        """Whether the input is over and all of it is decoded."""
        return self._listener.is_final

    @property
    def error(self) -> InputError | None:
        """Why the stream ended before its audio did: ``push`` and ``finish`` raise it, ``result`` has the words."""
        return self._error

    @property
    def reclaimed(self) -> bool:
        """Whether the stream was ended because it brought nothing for too long; ``finish`` has its words."""
        return self._reclaimed is not None

    # Audio in

    def push(self, samples: Any, sample_rate: int, timeout: Seconds | None = None) -> int:
        """Push one piece: ``samples`` (S,) or (S, channels) of numpy or torch, float in [-1, 1] or int16; S may be 0.

        Where the queue is full this waits until the machine has caught up, ``timeout`` seconds at most; with 0 it never waits.
        Pieces that several threads push at a time may be cut into each other.

        Returns how many of the samples were taken: all of them, unless the time was over. Raises InputError when the piece holds
        NaN or infinity (then none of it is taken), when the rate is not that of the first piece, or when the stream is finished
        or has an ``error``.
        """
        mono, epoch, taken = as_mono(samples), self._epoch, 0
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            part = self._offer(mono[taken:], sample_rate, epoch)
            taken += part
            if taken == len(mono):
                return taken
            if part == 0:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return taken
                waiter = self._room_soon()
                try:
                    self._engine._wait(waiter, left)
                except TimeoutError:
                    return taken
                finally:
                    waiter.cancel()  # where nobody waits any more, or it would be kept for as long as the machine is behind

    def _offer(self, mono: Audio, sample_rate: int, epoch: int) -> int:
        """Take as many samples (S,) as there is room for."""
        engine = self._engine
        with engine._results, self._input:
            with engine._lock:
                row = self._refuse(epoch)
                engine._brought_at[row] = engine._clock()
                room = self._room(row)
            self._intake.check_rate(sample_rate)
            part = mono[: max(0, math.ceil(room * sample_rate / engine.system.sample_rate))]
            resampled = self._intake.take(part, sample_rate)
            with engine._lock:
                self._enqueue(self._refuse(epoch), resampled)
        return len(part)

    def _room(self, row: int) -> int:
        return self._engine._most - self._engine._ring.waiting(row)

    def _enqueue(self, row: int, samples: Audio) -> None:
        ring = self._engine._ring
        if ring.waiting(row) + len(samples) > ring.capacity:
            self._fail(InputError(f"a resampler held back more than {ring.capacity} samples: push audio of a higher sample rate"))
            return
        ring.write(row, samples)
        if ring.wants(row):
            self._engine._wake.set()

    def _refuse(self, epoch: int) -> int:
        """The row, where the stream may go on. Raises InputError where it may not."""
        reason = self._error or self._reclaimed
        if reason is not None:
            raise anew(reason)
        if self._row is None or self._input_over:
            raise InputError("this stream is finished: get a new one from engine.stream()")
        if epoch != self._epoch:
            raise InputError("the stream was reset while this piece was being pushed: what is left of it is dropped")
        return self._row

    def _room_soon(self) -> "Future[None]":
        """Done when there is room for audio, or never will be."""
        waiter: Future[None] = Future()
        with self._engine._lock:
            if self._row is None or self._input_over or self._room(self._row) > 0:
                waiter.set_result(None)
            else:
                self._waiters = [*(one for one in self._waiters if not one.done()), waiter]
                self._engine._awaited[self._row] = True
        return waiter

    # Words out

    def result(self) -> Hypothesis:
        """The words so far, which are never taken back."""
        with self._engine._results, self._engine._lock:
            return self._words()

    def _words(self) -> Hypothesis:
        try:
            return self._listener.current()
        except Exception as error:  # of what was said last no text can be made
            self._fail_at(error)
            return self._listener.current()

    def partial(self) -> Partial:
        """The words so far, and what a search would say behind them if the stream ended here."""
        with self._engine._results, self._engine._lock:
            engine, stable = self._engine, self._words()
            if self._row is None or not engine._tail_lens[self._row]:
                return Partial(stable, "")
            tail = engine._tail_ids[self._row, : engine._tail_lens[self._row]].tolist()
            return Partial(stable, self._listener.preview(tail))

    def finish(self, timeout: Seconds | None = None) -> Hypothesis:
        """End the stream and return all its words; its slot is free afterwards.

        Raises the stream's ``error``, InputError when it was closed before its end, and TimeoutError after ``timeout`` seconds, when it
        may be called again.
        """
        return self._engine._wait(self.finish_soon(), timeout)

    def finish_soon(self) -> "Future[Hypothesis]":
        """``finish``, as a future, which others share: it is not to be cancelled."""
        with self._engine._results, self._input, self._engine._lock:
            self._end_input()
        self._engine._wake.set()
        return self._final

    def _end_input(self) -> None:
        if self._row is not None and not self._input_over:
            rest = self._intake.finish()
            if rest is not None:
                self._enqueue(self._row, rest)
        if self._row is not None and not self._input_over:
            ring = self._engine._ring
            ring.close(self._row, self._engine.system.flush_samples(ring.written(self._row)))
            self._input_over = True
            self._tell()

    def reset(self) -> None:
        """Begin anew in the same slot, with the same options: what was said is forgotten, and what is not decoded yet is dropped.

        Raises InputError when the stream is finished or has an ``error``.
        """
        with self._engine._results, self._input, self._engine._lock:
            row = self._refuse(self._epoch)
            self._epoch += 1
            self._intake, self._listener = Intake(self._engine.system.sample_rate), Listener(self._engine.system)
            self._engine._begin(row, self._chosen)
            self._tell()

    def close(self) -> None:
        """Give the slot back; what is not decoded yet is dropped."""
        with self._engine._results, self._engine._lock:
            self._leave(InputError("this stream was closed before its end: it has no final result"))

    # What the engine tells, with its lock held

    def _hear(self, rows: Rows, at: int, final: bool) -> None:
        """What came out in row ``at`` of the group's ``rows``."""
        row, engine = self._row, self._engine
        assert row is not None
        self._tell()
        if rows.is_nan[at]:
            self._fail(InputError(NAN_SCORES))
            return
        hear = self._listener.hear if final else self._listener.keep
        hear(rows, at, self.accepted, engine._ring.written(row))
        if rows.exhausted[at]:
            self._fail(at_capacity(self.accepted, engine.system))
        elif final:
            self._listener.is_final = True
            self._listener.rank(engine._n_best(row, self._listener.current().token_ids))
            self._leave(None)

    def _fail_at(self, error: Exception) -> None:
        self._fail(caused(f"the stream could not be decoded any further: {error!r}", error))

    def _fail(self, reason: InputError) -> None:
        self._error = reason
        self._leave(reason)

    def _reclaim(self, timeout: Seconds) -> None:
        if self._input.acquire(blocking=False):  # somebody pushes just now: not idle
            try:
                self._reclaimed = InputError(f"no audio for {timeout:g} s: the stream was ended, finish() has its words; get a new one")
                self._end_input()
            finally:
                self._input.release()

    def _leave(self, reason: InputError | None) -> None:
        if self._row is None:
            return
        row, self._row, self._chosen = self._row, None, None
        if reason is None:
            self._engine._results.give(self._final, self._listener.current())
        else:
            self._engine._results.give(self._final, error=anew(reason))
        self._tell()
        self._engine._release(row)

    def _tell(self) -> None:
        """Wake up who waits for room."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._engine._results.give(waiter)
        if self._row is not None:
            self._engine._awaited[self._row] = False


def give_back(joining: "Future[EngineStream]") -> None:
    """Whoever waited for a stream does not want it any more: the slot is free, or will be as soon as the stream gets it."""

    def close(joined: "Future[EngineStream]") -> None:
        if not joined.cancelled() and joined.exception() is None:
            joined.result().close()

    if not joining.cancel():
        joining.add_done_callback(close)
