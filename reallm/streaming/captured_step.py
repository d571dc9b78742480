"""The step of a system over tensors that stay where they are, so that an accelerator can be told once what it does. B rows.

::

    host arrays ─► pinned buffers ─► wav, lens, final ┐
                                      state ──────────┴► system.step ─► packed emission ─► pinned buffer ─► event ─► Rows
                                        ▲──────────────────── state ┘

On a CUDA device all between the pinned buffers is one CUDA graph, which is started by one call; the host waits once, for the event.
Elsewhere the same runs as it is written.

The capture itself has not run on an accelerator yet: what surrounds it is tested on a processor.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reallm.protocols import StreamingSystem, takes_phrases
from reallm.searchers._biasing import Table
from reallm.streaming.host import nobody_ends
from reallm.streaming.options import TakenChoices
from reallm.streaming.readback import Rows, pack
from reallm.streaming.sample_ring import Chunks
from reallm.streaming.state import S, StreamingState, map_states, tensors

WARM_UP = 3  # steps, in which libraries choose their kernels and allocate what they need


def captures(system: StreamingSystem, device: torch.device) -> bool:
    """Whether the steps of a system on a device are to be captured: those that do the same work whatever the numbers are.

    A searcher says so by ``is_static``; of the other components it is taken for granted.
    """
    searcher: Any = getattr(system, "searcher", None)
    return device.type == "cuda" and (searcher is None or bool(getattr(searcher, "is_static", False)))


class Packed(NamedTuple):
    """See readback.pack."""

    emission: Tensor  # (B, …) int64
    tokens: int
    speech_ends: int


class CapturedStep:
    """A system's step, its inputs, and the state that it advances.

    Args:
        system: in eval mode; see ``captures``.
        state: of B new streams. Its tensors are those that are written into from now on.
        size: S_c.
        audio_dtype: of wav.
        like: another one of the same arguments, with which it shares the memory that a step takes beside the state. They are not to step
            at a time.

    Raises RuntimeError where the step cannot be captured, torch.OutOfMemoryError where it finds no memory.
    """

    @torch.inference_mode()
    def __init__(
        self, system: StreamingSystem, state: StreamingState, size: int, audio_dtype: torch.dtype, like: "CapturedStep | None" = None
    ) -> None:
        self._system, self.state = system, _apart(state)
        batch, self._device = tensors(state)[0].size(0), tensors(state)[0].device
        # Graphs run one at a time, and what one has put out is read before the next one runs: so all may compute in the same memory.
        self._pool: Any = None if like is None else like._pool
        with self._there():
            self._prepare(batch, size, audio_dtype)

    def _there(self) -> AbstractContextManager[Any]:
        """Inside, the current device is that of the state: streams, events and graphs are made on the current one."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _prepare(self, batch: int, size: int, audio_dtype: torch.dtype) -> None:
        dtypes = (torch.float32, torch.int64, torch.bool)
        shapes = ((batch, size), (batch,), (batch,))
        self._host = [self._pinned(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        wav, lens, final = (torch.zeros(shape, dtype=dtype, device=self._device) for shape, dtype in zip(shapes, dtypes, strict=True))
        self._inputs = (wav.to(audio_dtype), lens, final)
        self._replays: dict[tuple[bool, bool], Callable[[], Packed]] = {}  # by whether a row may end, and may have phrases
        self._phrases: Table | None = None  # that of the replays
        self._packed: Tensor | None = None  # on the host
        self._capture_all()

    def _capture_all(self) -> None:
        if self._device.type == "cuda":
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._warm_up()
            for ends in (True, False):
                self._replay(ends)

    def _pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=self._device.type == "cuda")

    def _run(self) -> Packed:
        emission, after = self._system.step(*self._inputs, self.state)
        packed = Packed(*pack(emission, self._system))
        self.adopt(after)
        return packed

    def adopt(self, after: StreamingState) -> None:
        """Write another state into that which stays; the two may share memory."""
        changed = [(old, new) for old, new in zip(tensors(self.state), tensors(after), strict=True) if not _same(old, new)]
        places = {old.untyped_storage().data_ptr() for old in tensors(self.state)}
        # What lies in the memory that is about to be written into is saved first.
        saved = [new.clone() if new.untyped_storage().data_ptr() in places else new for _, new in changed]
        for (old, _), new in zip(changed, saved, strict=True):
            old.copy_(new)

    @torch.inference_mode()
    def begin(self, choices: TakenChoices) -> None:
        """The rows of new streams take what these have chosen."""
        with self._there():
            after = map_states(lambda tensor: tensor, self.state)
            choices.write(self._system, after, self._device)
            self.adopt(after)

    @torch.inference_mode()
    def __call__(self, chunks: Chunks) -> Rows:
        """One chunk of the rows that take part, read back."""
        with self._there():
            return self._hear(chunks)

    def _hear(self, chunks: Chunks) -> Rows:
        for host, device, array in zip(self._host, self._inputs, chunks[:3], strict=True):
            host.copy_(torch.from_numpy(array))
            device.copy_(host, non_blocking=True)
        emission, tokens, speech_ends = self._replay(bool(chunks.final.any()))()
        if self._packed is None or self._packed.shape != emission.shape:
            self._packed = self._pinned(tuple(emission.shape), emission.dtype)
        self._packed.copy_(emission, non_blocking=True)
        if self._device.type == "cuda":
            cuda: Any = torch.cuda  # of which parts have no types
            done = cuda.Event()
            done.record()
            done.synchronize()
        return Rows.unpacked(self._packed.numpy().copy(), tokens, speech_ends)  # the next step writes into the buffer

    def _table(self) -> Table | None:
        searcher: Any = getattr(self._system, "searcher", None)
        table: Table | None = searcher.phrases.on(self._device) if takes_phrases(self._system) else None
        return table

    def _replay(self, ends: bool) -> Callable[[], Packed]:
        # A capture makes all streams wait. That without phrases is kept while there are some; that with phrases is of use until they get
        # more room elsewhere: then it reads what is no longer theirs.
        table = self._table()
        if table is not None and table is not self._phrases:
            self._replays = {which: replay for which, replay in self._replays.items() if not which[1]}
            self._phrases = table
        which = (ends, table is not None)
        if which not in self._replays:
            replay = self._capture(ends)
            if self._table() is not table:  # another thread has changed it meanwhile, and what was captured may be of either
                return replay
            self._replays[which] = replay
        return self._replays[which]

    def _capture(self, ends: bool) -> Callable[[], Packed]:
        """What runs the step: to be called for each."""
        known = nullcontext if ends else nobody_ends
        if self._device.type != "cuda":

            def plainly() -> Packed:
                with known():
                    return self._run()

            return plainly
        graph = torch.cuda.CUDAGraph()
        with known(), torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):  # other threads may use the device
            packed = self._run()

        def replay() -> Packed:
            graph.replay()
            return packed

        return replay

    def _warm_up(self) -> None:
        """Steps in which all rows rest, so that the state stays what it is, on a stream of their own, as captures want it."""
        cuda: Any = torch.cuda
        stream = cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream(self._device).wait_stream(stream)


def _apart(state: S) -> S:
    """A state whose tensors share no memory."""
    taken: set[int] = set()

    def own(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place in taken or not tensor.is_contiguous():
            return tensor.clone(memory_format=torch.contiguous_format)
        taken.add(place)
        return tensor

    return map_states(own, state)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride() and one.shape == other.shape
