"""One step of a system for all streams, of which one that goes wrong takes no other with it. B rows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from reallm.layers.full_precision import audio_dtype
from reallm.memory import ran_out
from reallm.protocols import StreamingSystem, keeps_n_best
from reallm.searchers._hypotheses import Hypotheses
from reallm.streaming.captured_step import CapturedStep, captures
from reallm.streaming.kept_rows import KeptRows
from reallm.streaming.options import TakenChoices
from reallm.streaming.readback import Pending, Rows
from reallm.streaming.sample_ring import Chunks, Mask
from reallm.streaming.state import StreamingState, map_states, reset, select
from reallm.types import Scored

logger = logging.getLogger(__name__)


class Heard(NamedTuple):
    """What a step brought out."""

    rows: Rows
    took_part: Mask  # (B,), the rows that it is about: those with a chunk, and those whose answers went on
    final: Mask  # (B,), those that end with it


class BatchedStep:
    """The states of B streams and the step that advances them.

    Where a step of the search is bounded (GreedySearcher.positions), the answers of some rows go on in the next one: these are ``pending``
    (B,), and want a step whether or not there is a chunk for them. Those that are ``full`` (B,) are not to bring one.

    Args:
        system: in eval mode.
        batch: B.
        device, dtype: of the states; audio is never below float32.
        isolates: keep a copy of the rows that take part, of before the step. With it a step that raises is done again for one half of
            them and for the other, until it is known which row it is that cannot be decoded. Without it all rows of the step fail.
            Of no use where steps are captured (see captured_step.py), in which no Python runs that could raise.
        like: another one of the same arguments, with which it shares what is not the states'. They are not to step at a time.

    Raises RuntimeError where there is no memory for the states, or for a step that is captured.
    """

    def __init__(
        self,
        system: StreamingSystem,
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
        isolates: bool,
        like: "BatchedStep | None" = None,
    ) -> None:
        self._system, self._device, self._audio_dtype = system, device, audio_dtype(dtype)
        with torch.inference_mode():
            self._initial: Any = system.init_state(1, device, dtype) if like is None else like._initial
            self._captured: CapturedStep | None = None
            if captures(system, device) and (like is None or like._captured is not None):
                self._captured = _captured(system, batch, device, dtype, None if like is None else like._captured)
            self.state = system.init_state(batch, device, dtype) if self._captured is None else self._captured.state
            self._kept: KeptRows | None = None
            if isolates and self._captured is None:
                shared = None if like is None else like._kept
                self._kept = KeptRows(self.state) if shared is None else shared
        self.pending, self.full, self._ending = (np.zeros(batch, dtype=np.bool_) for _ in range(3))
        self._n_best: Any = getattr(system, "n_best", None) if keeps_n_best(system) else None

    @torch.inference_mode()
    def renew(self, rows: Mask) -> None:
        """``rows`` (B,) become those of new streams."""
        self.pending, self.full, self._ending = (mask & ~rows for mask in (self.pending, self.full, self._ending))
        self.state = reset(self.state, torch.from_numpy(rows), self._initial)

    @torch.inference_mode()
    def begin(self, choices: TakenChoices) -> None:
        """The rows of new streams take what these have chosen."""
        if self._captured is not None:
            self._captured.begin(choices)
        else:
            choices.write(self._system, self.state, self._device)

    @torch.inference_mode()
    def __call__(self, chunks: Chunks) -> tuple[list[Heard], dict[int, Exception]]:
        """Decode one chunk of the rows that take part, and go on in those that are pending: what was heard, what went wrong in which.

        A row is in one of what was heard, or it went wrong: then it is that of a new stream, or its answers would go on in later steps.
        """
        heard: list[Heard] = []
        failed: dict[int, Exception] = {}
        self._decode(chunks._replace(rows=chunks.rows | self.pending), heard, failed)
        return heard, failed

    def _decode(self, chunks: Chunks, heard: list[Heard], failed: dict[int, Exception]) -> None:
        taking_part = np.flatnonzero(chunks.rows)
        if self._kept is not None:
            self._kept.keep(self.state, torch.from_numpy(taking_part).to(self._device))
        try:
            rows, after = self._step(chunks)
        except Exception as error:
            if self._kept is not None:
                self.state = self._kept.restore(self.state)
            if self._kept is None or len(taking_part) <= 1:
                failed.update(dict.fromkeys(taking_part.tolist(), error))
                self.renew(chunks.rows)
                return
            for half in np.array_split(taking_part, 2):
                mask = np.zeros_like(chunks.rows)
                mask[half] = True
                with self._resting(self.pending & ~mask):
                    self._decode(chunks.of(mask), heard, failed)
        else:
            self.state = after
            ending = chunks.final | (self._ending & chunks.rows)
            for own, told in ((self.pending, rows.pending), (self.full, rows.full), (self._ending, ending & rows.pending)):
                np.copyto(own, told, where=chunks.rows)
            heard.append(Heard(rows, chunks.rows, ending & ~rows.pending))

    @contextmanager
    def _resting(self, rows: Mask) -> Iterator[None]:
        """Inside, ``rows`` (B,) are those of new streams, which have nothing to go on with; afterwards they are what they were."""
        index = torch.from_numpy(np.flatnonzero(rows)).to(self._device)
        kept = select(self.state, index)
        self.state = reset(self.state, torch.from_numpy(rows), self._initial)
        yield
        self.state = map_states(lambda tensor, own: tensor.index_copy_(0, index, own), self.state, kept)

    def _step(self, chunks: Chunks) -> tuple[Rows, StreamingState]:
        if self._captured is not None:
            return self._captured(chunks), self.state
        wav, lens, final = (torch.from_numpy(array).to(self._device) for array in chunks[:3])
        emission, after = self._system.step(wav.to(self._audio_dtype), lens, final, self.state)
        return Rows(emission, self._system, pending_of(after)), after

    @torch.inference_mode()
    def n_best(self, emitted: list[int], row: int) -> list[Scored]:
        """The hypotheses of a row that ended with this step, where the system keeps several."""
        return [] if self._n_best is None else list(self._n_best(emitted, self.state, row))


def _captured(
    system: StreamingSystem, batch: int, device: torch.device, dtype: torch.dtype, like: CapturedStep | None
) -> CapturedStep | None:
    """None where the capture fails: what a searcher says of itself, a component beside it may not keep."""
    try:
        return CapturedStep(system, system.init_state(batch, device, dtype), system.chunk_samples, audio_dtype(dtype), like)
    except RuntimeError as error:
        if ran_out(error):  # so would steps that are not captured, but later
            raise
        name = getattr(system, "component_name", type(system).__name__)
        logger.warning("the steps of system '%s' are not captured, and take longer: %s", name, error)
        return None


def pending_of(state: Any) -> Pending | None:
    """What the best hypotheses hold back; None where the search commits at once."""
    hypotheses = getattr(getattr(state, "search", None), "hypotheses", None)
    if not isinstance(hypotheses, Hypotheses):
        return None
    best = hypotheses.best()
    # Scores that are NaN compare with nothing, so that no hypothesis goes on.
    return Pending(best.token_ids[:, 0], best.length[:, 0], ~hypotheses.live.any(1))
