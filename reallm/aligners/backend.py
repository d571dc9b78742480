"""Which engine searches a lattice: k2 where it can be had, else torch. Both give the same path, ties aside."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from reallm.aligners import k2_client
from reallm.aligners.lattice import viterbi_emissions
from reallm.aligners.path import in_samples
from reallm.aligners.viterbi import viterbi_labels
from reallm.errors import InputError, nearest
from reallm.protocols import AlignmentFailure
from reallm.types import Alignment, Batch

BACKENDS = ("auto", "k2", "torch")


@dataclass(frozen=True)
class Backend:
    """An engine, with what is stored beside the alignments that it makes."""

    name: str
    version: str
    labels: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of CTC, as reallm.aligners.viterbi.viterbi_labels
    emissions: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # of RNN-T, as reallm.aligners.lattice.viterbi_emissions


def find_backend(name: str = "auto") -> Backend:
    """The engine called ``name``; ``auto`` is k2, or torch with one warning where there is no k2.

    Raises InputError for an unknown name, and for "k2" where there is none.
    """
    if name not in BACKENDS:
        raise InputError(f"unknown backend '{name}'{nearest(name, BACKENDS)}: one of {', '.join(BACKENDS)}")
    if name != "torch":
        try:
            return Backend("k2", k2_client.connect().version, k2_client.k2_labels, k2_client.k2_emissions)
        except k2_client.K2Missing as missing:
            if name == "k2":
                raise InputError(f"backend 'k2' is not here ({missing}): {k2_client.HOW_TO_GET}, or choose the backend 'torch'") from None
            _warn(str(missing))
    return Backend("torch", torch.__version__, viterbi_labels, viterbi_emissions)


@functools.cache
def _warn(missing: str) -> None:
    import logging

    logging.getLogger(__name__).warning("aligning with the torch backend, without k2 (%s): %s", missing, k2_client.HOW_TO_GET)


class BackendAligner(ABC):
    """What the aligners share that search with an engine: the path is theirs, their docstrings say of which scores."""

    scores: str  # the teacher's method that gives them
    needs: tuple[str, str]  # what they are, and the system that has them

    def __init__(self, backend: str = "auto") -> None:
        self.backend = backend

    @classmethod
    def tiny(cls) -> Self:
        """With the torch backend."""
        return cls(backend="torch")

    def backend_version(self) -> tuple[str, str]:
        """Name and version of the engine that searches, which are stored beside the alignments."""
        engine = find_backend(self.backend)
        return engine.name, engine.version

    @torch.no_grad()
    def align(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[Alignment | AlignmentFailure]:
        """One alignment an utterance, or why it has none. Raises InputError for a teacher without these scores."""
        if not hasattr(teacher, self.scores):
            what, system = self.needs
            raise InputError(f"{type(teacher).__name__} has no {what} to align with: name a trained `{system}` system, or align with --ctm")
        rows = zip(self.paths(batch, token_ids, teacher), token_ids, batch.wav_lens.tolist(), strict=True)
        return [path if isinstance(path, AlignmentFailure) else in_samples(path, ids, samples, teacher) for path, ids, samples in rows]

    @abstractmethod
    def paths(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> Sequence[Any]:
        """A path an utterance, as :func:`in_samples` takes it, or an AlignmentFailure."""
