"""What the aligners share that search with a trained teacher's scores."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.path import in_samples
from reallm.errors import InputError
from reallm.protocols import AlignmentFailure
from reallm.types import Alignment, Batch


class TeacherAligner(ABC):
    """The path is theirs, their docstrings say of which scores."""

    scores: str  # the teacher's method that gives them
    needs: tuple[str, str]  # what they are, and the system that has them

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
        """A path an utterance, as :func:`in_samples` takes it, or an AlignmentFailure.

        Raises InputError for tokens that are not the teacher's.
        """
