"""What users hold: streams of audio in, words out.

::

    recognizer = Recognizer(system, max_streams=8)  # by default one stream at a time
    stream = recognizer.stream()
    stream.accept_waveform(samples, sample_rate)  # pieces of any size, at any rate
    print(stream.result().text)
    print(stream.finish().text)

The grid of chunks is counted in samples at the system's rate from the start of the stream, and whole chunks are
decoded before the rest: the text does not depend on the sizes of the pieces.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import torch

from reallm.errors import InputError
from reallm.layers.full_precision import audio_dtype
from reallm.protocols import StreamingSystem, System, keeps_n_best, streams
from reallm.streaming.audio_input import as_mono
from reallm.streaming.batched_step import pending_of
from reallm.streaming.intake import Intake
from reallm.streaming.kept_errors import anew
from reallm.streaming.listener import NAN_SCORES, Listener, Partial, at_capacity
from reallm.streaming.options import Choices, Chosen, StreamOptions, choose
from reallm.streaming.readback import Rows
from reallm.streaming.sample_queue import SampleQueue
from reallm.streaming.state import reset
from reallm.types import Hypothesis, Seconds


class Stream:
    """One stream of audio. Made by a recognizer's ``stream()``.

    It holds a slot there until ``finish`` or ``close``, until it has an ``error``, or until nobody holds it any more. As a context
    manager it is closed at the end.
    """

    def __init__(self, recognizer: "AnyRecognizer", row: int, chosen: Chosen | None) -> None:
        self._recognizer = recognizer
        self._chosen = chosen
        self._row = row
        self._release = weakref.finalize(self, recognizer._release, row)  # once, whatever comes first
        self._input_over = False
        self._closed = False
        self._error: InputError | None = None
        self._begin()

    def _begin(self) -> None:
        self._queue = SampleQueue()
        self._intake = Intake(self._recognizer.system.sample_rate)
        self._queued = 0  # samples at the system's rate, the flush not counted
        self._listener = Listener(self._recognizer.system)
        self._tail: list[int] = []  # tokens that a search may take back
        self._pending, self._full, self._flushed = False, False, False  # answers go on; no room for a chunk; the last one was taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def accepted(self) -> Seconds:
        """Seconds of audio accepted so far."""
        return self._intake.accepted

    @property
    def is_ready(self) -> bool:
        """Whether there is something to decode."""
        if self.is_final or self._closed:
            return False
        return self._input_over or self._pending or self._recognizer._can_decode(len(self._queue))

    @property
    def error(self) -> InputError | None:
        """Why the stream ended before its audio did: ``accept_waveform``, ``result`` and ``finish`` raise it, ``current`` has the words."""
        return self._error

    def _refuse_failed(self) -> None:
        if self._error is not None:
            raise anew(self._error)

    def _refuse_ended(self) -> None:
        self._refuse_failed()
        if self._input_over or self._closed:
            raise InputError("this stream is finished: get a new one from recognizer.stream()")

    def _fail(self, reason: InputError) -> None:
        self._error = reason
        self.close()

    @property
    def is_final(self) -> bool:
        """Whether the input is over and all of it is decoded."""
        return self._listener.is_final

    def accept_waveform(self, samples: Any, sample_rate: int) -> None:
        """Push one piece: ``samples`` (S,) or (S, channels) of numpy or torch, float in [-1, 1] or int16; S may be 0.

        Nothing is decoded yet. Raises InputError when the piece holds NaN or infinity (then none of it is taken), when the
        rate is not that of the first piece, or when the stream is finished or has an ``error``.
        """
        self._refuse_ended()
        self._enqueue(self._intake.take(as_mono(samples), sample_rate))

    def _enqueue(self, samples: Any) -> None:
        self._queue.push(samples)
        self._queued += len(samples)
        reason = self._recognizer._refusal(len(self._queue))
        if reason is not None:
            self._fail(InputError(reason))

    def input_finished(self) -> None:
        """There is no more audio: what is needed to bring out the last word is queued behind it. Nothing is decoded yet."""
        if self._input_over or self._closed:
            return
        rest = self._intake.finish()
        if rest is not None:
            self._enqueue(rest)
        self._queue.push_zeros(self._recognizer._flush_samples(self._queued))
        self._input_over = True

    def result(self) -> Hypothesis:
        """The words so far, after decoding what is ready. Raises the stream's ``error``."""
        if self.is_ready:
            self._recognizer.decode()
        self._refuse_failed()
        return self.current()

    def partial(self) -> Partial:
        """The words so far, and what a search would say behind them if the stream ended here, after decoding what is ready.

        Raises the stream's ``error``.
        """
        return Partial(self.result(), self._listener.preview(self._tail))

    def current(self) -> Hypothesis:
        """The words so far, without decoding."""
        return self._listener.current()

    def finish(self) -> Hypothesis:
        """End the stream and return all its words; its slot is free afterwards. Raises the stream's ``error``."""
        return self._recognizer.finish([self])[0]

    def reset(self) -> None:
        """Begin anew in the same slot, with the same options: what was said is forgotten, and what is not decoded yet is dropped.

        Raises InputError when the stream is finished or has an ``error``.
        """
        self._refuse_ended()
        self._begin()
        self._recognizer._renew(self._row, self._chosen)

    def close(self) -> None:
        """Give the slot back; what is not decoded yet is dropped."""
        if not self._closed:
            self._closed, self._chosen = True, None
            self._queue = SampleQueue()
            self._release()

    def _take_chunk(self, chunk: Any) -> tuple[int, bool]:
        """Fill ``chunk`` (S_c,) for the next step; how many samples, and whether they are the last."""
        if self._full or self._flushed or not (self._input_over or len(self._queue) >= len(chunk)):
            return 0, False
        # A last chunk that is full goes first as an ordinary one, whether or not it was decoded before the input was over.
        self._flushed = self._input_over and len(self._queue) < len(chunk)
        return self._queue.take_into(chunk), self._flushed

    def _hear(self, rows: Rows, row: int) -> None:
        accepted = self.accepted
        self._pending, self._full = bool(rows.pending[row]), bool(rows.full[row])
        final = self._flushed and not self._pending
        if rows.is_nan[row]:
            self._fail(InputError(NAN_SCORES))
            return
        self._listener.hear(rows, row, accepted, self._queued)
        if rows.exhausted[row]:
            self._fail(at_capacity(accepted, self._recognizer.system))
        self._listener.is_final = final and self._error is None
        self._tail = [] if final else rows.tail(row)


def device_of(system: System) -> torch.device:
    """Where the system's parameters lie; the CPU, if it has none."""
    return parameter_of(system).device


def parameter_of(system: System) -> torch.Tensor:
    """One of the system's parameters, for its device and type; an empty tensor, if it has none.

    The encoder's, where that has any, and the frontend's where nothing else has: it remains float32.
    """
    named = list(system.named_parameters()) if isinstance(system, torch.nn.Module) else []
    rank = {"encoder": 0, "frontend": 2}
    return min(named, key=lambda item: rank.get(item[0].partition(".")[0], 1))[1] if named else torch.empty(0)


class AnyRecognizer(ABC):
    """Slots for streams, which are decoded in one batch: what recognizers share. Not for several threads at once.

    Raises InputError for what is no system, when it is in training mode, or when ``max_streams`` is below 1.
    """

    def __init__(self, system: System, max_streams: int = 1) -> None:
        if not hasattr(system, "recognize"):
            path = repr(str(system)) if isinstance(system, (str, Path)) else "PATH"
            raise InputError(f"a recognizer needs a system, not a {type(system).__name__}: give it load({path}), from reallm.bundle")
        if max_streams < 1:
            raise InputError(f"max_streams={max_streams}: give at least 1")
        if getattr(system, "training", False):
            raise InputError("the system is in training mode: call system.eval() before it is used")
        self.system = system
        self.device, self._dtype = device_of(system), parameter_of(system).dtype
        self._slots: list[weakref.ref[Stream] | None] = [None] * max_streams

    @property
    def max_streams(self) -> int:
        """The number of slots."""
        return len(self._slots)

    def stream(self, **options: Unpack[StreamOptions]) -> Stream:
        """A new stream in a free slot, with ``options`` of its own: see StreamOptions.

        Raises InputError when all slots are taken, and for options that the system cannot keep.
        """
        chosen = choose(self.system, **options)
        if None not in self._slots:
            raise InputError(f"all {self.max_streams} streams are in use: finish() or close() one, or raise max_streams")
        row = self._slots.index(None)
        self._renew(row, chosen)
        stream = Stream(self, row, chosen)
        self._slots[row] = weakref.ref(stream)
        return stream

    def _release(self, row: int) -> None:
        self._slots[row] = None

    @property
    def _ready(self) -> list[Stream]:
        held = [slot() for slot in self._slots if slot is not None]
        return [stream for stream in held if stream is not None and stream.is_ready]

    @contextmanager
    def _closing_at_errors(self, streams: Sequence[Stream]) -> Iterator[None]:
        """What goes wrong inside has cost the ``streams`` their audio: they are closed."""
        try:
            yield
        except Exception:
            for stream in streams:
                stream.close()
            raise

    @abstractmethod
    def _renew(self, row: int, chosen: Chosen | None) -> None:
        """Make the row that of a new stream, which has ``chosen`` this."""

    @abstractmethod
    def _can_decode(self, waiting: int) -> bool:
        """Whether ``waiting`` queued samples are enough for a stream that has not ended."""

    def _refusal(self, waiting: int) -> str | None:
        """Why a stream with ``waiting`` queued samples ends in an error; None if it does not."""
        return None

    @abstractmethod
    def _flush_samples(self, samples: int) -> int:
        """How many zeros are queued behind a stream of ``samples``."""

    @abstractmethod
    def step(self) -> bool:
        """Decode once all streams that are ready; False when there was nothing to do."""

    def decode(self) -> None:
        """Decode all that is ready, all streams together."""
        while self.step():
            pass

    def finish(self, streams: Sequence[Stream]) -> list[Hypothesis]:
        """End several streams at once and return all their words; their slots are free afterwards.

        Raises InputError when a stream was closed before its end, and the first ``error`` of a stream: the words of the others
        are then in their ``current``.
        """
        for stream in streams:
            if stream._closed and not (stream.is_final or stream.error):
                raise InputError("this stream was closed before its end: it has no final result")
            stream.input_finished()
        self.decode()
        for stream in streams:
            stream.close()
        for stream in streams:
            stream._refuse_failed()
        return [stream.current() for stream in streams]


class Recognizer(AnyRecognizer):
    """Decodes up to ``max_streams`` streams in one batch, of any ages. Memory is constant but for transcripts and phrases, see Engine.

    Args:
        system: a trained system that streams, in eval mode.
        max_streams: the rows of the streaming state, allocated here.

    Raises InputError for what is no system, when it does not stream or is in training mode, and when ``max_streams`` is below 1.
    """

    system: StreamingSystem

    def __init__(self, system: System, max_streams: int = 1) -> None:
        super().__init__(system, max_streams)
        if not streams(system):
            name = getattr(system, "component_name", type(system).__name__)
            raise InputError(
                f"system '{name}' recognizes whole utterances and does not stream: use reallm.streaming.offline.OfflineRecognizer"
            )
        with torch.inference_mode():
            self._initial = system.init_state(1, self.device, self._dtype)
            self._state = system.init_state(max_streams, self.device, self._dtype)
        self._used = [False] * max_streams
        self._choices = Choices(max_streams)
        self._n_best: Any = getattr(system, "n_best", None) if keeps_n_best(system) else None

    @torch.inference_mode()
    def _renew(self, row: int, chosen: Chosen | None) -> None:
        if self._used[row]:
            rows = torch.zeros(self.max_streams, dtype=torch.bool)  # on the host, which would wait to see it elsewhere
            rows[row] = True
            self._state = reset(self._state, rows, self._initial)
        self._used[row] = True
        self._choices.put(row, chosen)
        taken = self._choices.take()
        if taken is not None:
            taken.write(self.system, self._state, self.device)

    def _can_decode(self, waiting: int) -> bool:
        return waiting >= self.system.chunk_samples

    def _flush_samples(self, samples: int) -> int:
        return self.system.flush_samples(samples)

    @torch.inference_mode()
    def step(self) -> bool:
        """Decode one chunk of every stream that has one; False when there was nothing to do."""
        busy = self._ready
        if not busy:
            return False
        with self._closing_at_errors(busy):
            self._decode_chunk(busy)
        return True

    def _decode_chunk(self, busy: Sequence[Stream]) -> None:
        wav = np.zeros((self.max_streams, self.system.chunk_samples), dtype=np.float32)
        lens = np.zeros(self.max_streams, dtype=np.int64)
        final = np.zeros(self.max_streams, dtype=np.bool_)
        for stream in busy:
            lens[stream._row], final[stream._row] = stream._take_chunk(wav[stream._row])
        chunk, chunk_lens, chunk_final = (torch.from_numpy(array).to(self.device) for array in (wav, lens, final))
        emission, self._state = self.system.step(chunk.to(audio_dtype(self._dtype)), chunk_lens, chunk_final, self._state)
        rows = Rows(emission, self.system, pending_of(self._state))
        for stream in busy:
            stream._hear(rows, stream._row)
            if stream.is_final and self._n_best is not None:
                stream._listener.rank(self._n_best(stream.current().token_ids, self._state, stream._row))
