"""Which engine searches a lattice: k2 where it can be had, else torch. Both give the same path, ties aside."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from reallm.aligners import k2_client
from reallm.aligners.lattice import viterbi_emissions
from reallm.aligners.teacher import TeacherAligner
from reallm.aligners.viterbi import viterbi_labels
from reallm.errors import InputError, nearest

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


class BackendAligner(TeacherAligner):
    """What the aligners share that search with an engine."""

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
