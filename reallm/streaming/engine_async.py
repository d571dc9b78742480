"""The engine's streams for asyncio: no coroutine keeps the event loop waiting for a slot, for room in a queue, or for words.

::

    with Engine(system, slots=64) as engine:  # its worker decodes in a thread of its own
        async with await open_stream(engine) as stream:
            await stream.push(samples, sample_rate)
            print((await stream.finish()).text)

What the loop itself does is short: it resamples what is pushed, and waits for the engine's lock, which no step holds while the system
computes, but each for as long as it takes to tell the streams what was said; with a beam, also to read the hypotheses of streams that end.
Phrases are compiled in another thread.
"""

import asyncio
from functools import partial
from typing import Any, Self, Unpack

from reallm.errors import InputError
from reallm.streaming.audio_input import as_mono
from reallm.streaming.engine import Engine
from reallm.streaming.engine_stream import EngineStream, give_back
from reallm.streaming.kept_errors import anew
from reallm.streaming.listener import Partial
from reallm.streaming.options import StreamOptions, choose
from reallm.types import Hypothesis


async def open_stream(engine: Engine, **options: Unpack[StreamOptions]) -> "AsyncStream":
    """A new stream with ``options`` of its own, after waiting for a slot where the engine's ``max_waiting`` lets it.

    Raises InputError as ``Engine.stream``, and where the engine has no worker.
    """
    if not engine.is_running:
        raise InputError("asyncio needs an engine that decodes in a thread: call engine.start(), or use it in a `with`")
    choosing = partial(choose, engine.system, **options)
    joining = engine._join(await asyncio.to_thread(choosing) if options.get("phrases") else choosing())
    try:
        return AsyncStream(await asyncio.wrap_future(joining))
    except asyncio.CancelledError:
        give_back(joining)
        raise


class AsyncStream:
    """A stream of an engine that was started, in asyncio. As a context manager it is closed at the end."""

    def __init__(self, stream: EngineStream) -> None:
        self.stream = stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    async def push(self, samples: Any, sample_rate: int) -> None:
        """Push one piece, after waiting for room where the queue is full. See EngineStream.push."""
        stream, mono, epoch = self.stream, as_mono(samples), self.stream._epoch
        while True:
            part = stream._offer(mono, sample_rate, epoch)
            mono = mono[part:]
            if not len(mono):
                return
            if part == 0:
                await asyncio.wrap_future(stream._room_soon())

    def result(self) -> Hypothesis:
        """See EngineStream.result."""
        return self.stream.result()

    def partial(self) -> Partial:
        """See EngineStream.partial."""
        return self.stream.partial()

    async def finish(self) -> Hypothesis:
        """End the stream and return all its words. See EngineStream.finish."""
        try:
            return await asyncio.shield(asyncio.wrap_future(self.stream.finish_soon()))
        except InputError as error:  # others may get it too
            raise anew(error.with_traceback(None)) from error.__cause__

    def reset(self) -> None:
        """See EngineStream.reset."""
        self.stream.reset()

    def close(self) -> None:
        """Give the slot back."""
        self.stream.close()
