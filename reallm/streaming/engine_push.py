"""One piece of audio for each of many streams of an engine at once. N streams, S samples of a piece."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reallm.errors import InputError
from reallm.streaming.audio_input import as_mono
from reallm.streaming.engine_stream import EngineStream
from reallm.streaming.resampler import Audio, require_rate
from reallm.streaming.sample_ring import Integers

if TYPE_CHECKING:
    from reallm.streaming.engine import Engine


def push_many(engine: "Engine", streams: Sequence[EngineStream], wav: Any, sample_rate: int) -> Integers:
    """See Engine.push_many. No function of Python is called for each stream where nothing is resampled."""
    pieces = _as_mono(wav, len(streams))
    _require_own(engine, streams)
    with _alone(streams), engine._lock:
        _require_open(streams, sample_rate)
        if sample_rate == engine.system.sample_rate:
            return _write(engine, streams, pieces)
    # One by one, and without the engine's lock: each may get a resampler, which takes its time to make.
    return np.array([_push(stream, piece, sample_rate) for stream, piece in zip(streams, pieces, strict=True)], dtype=np.int64)


def _as_mono(wav: Any, count: int) -> Audio:
    """(N, S) float32."""
    array = wav.detach().cpu().numpy() if isinstance(wav, torch.Tensor) else np.asarray(wav)
    if array.ndim not in (2, 3) or len(array) != count:
        raise InputError(f"audio of shape {array.shape} for {count} streams: give ({count}, samples) or ({count}, samples, channels)")
    try:
        return as_mono(array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])).reshape(array.shape[:2])
    except InputError:
        for number, piece in enumerate(array):
            with _named(number, count):
                as_mono(piece)
        raise


def _require_own(engine: "Engine", streams: Sequence[EngineStream]) -> None:
    if len(set(streams)) < len(streams):
        raise InputError(f"{len(streams)} streams, of which {len(set(streams))} are different: join the pieces of one")
    strange = [number for number, stream in enumerate(streams) if stream._engine is not engine]
    if strange:
        raise InputError(f"stream {strange[0]} of {len(streams)} is another engine's: push to each engine its own")


@contextmanager
def _alone(streams: Sequence[EngineStream]) -> Iterator[None]:
    """Nobody else pushes to these. Whoever wants several gets them in the same order, so that no two wait for each other."""
    held = []
    try:
        for lock in [stream._input for stream in sorted(streams, key=id)]:
            lock.acquire()
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()


def _require_open(streams: Sequence[EngineStream], sample_rate: int) -> None:
    """Where something is wrong with one stream, nothing has changed in any."""
    for number in [number for number, stream in enumerate(streams) if stream._row is None or stream._input_over]:
        with _named(number, len(streams)):
            streams[number]._refuse(streams[number]._epoch)
    for number in [number for number, stream in enumerate(streams) if stream._intake.rate not in (None, sample_rate)]:
        with _named(number, len(streams)):
            streams[number]._intake.check_rate(sample_rate)
    require_rate(sample_rate)


def _write(engine: "Engine", streams: Sequence[EngineStream], pieces: Audio) -> Integers:
    ring, rows = engine._ring, np.array([stream._row for stream in streams], dtype=np.int64)
    engine._brought_at[rows] = engine._clock()
    for stream in [stream for stream in streams if stream._intake.rate is None]:
        stream._intake.check_rate(engine.system.sample_rate)
    counts = np.clip(engine._most - ring.waiting_in(rows), 0, pieces.shape[1])
    ring.write_many(rows, pieces, counts)
    for stream, count in zip(streams, counts.tolist(), strict=True):
        stream._intake.samples += count
    if ring.oldest() is not None:
        engine._wake.set()
    return counts


def _push(stream: EngineStream, piece: Audio, sample_rate: int) -> int:
    try:
        return stream.push(piece, sample_rate, timeout=0)
    except InputError:  # it has ended since it was looked at, and says so when it is used again
        return 0


@contextmanager
def _named(number: int, count: int) -> Iterator[None]:
    """An error says which stream it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"stream {number} of {count}: {error}") from error
