"""Word times that others measured, carried onto our tokens: what every aligner that reads them from files shares."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.retokenize import spread, token_pieces
from reallm.errors import InputError
from reallm.protocols import AlignmentFailure, Tokenizer
from reallm.types import Alignment, Batch

TimedWord = tuple[float, float, str, float]  # start and end in seconds from the utterance's start, word, confidence
UNKNOWN = "<unk>"  # what aligners write for a word that is not in their dictionary


@dataclass(frozen=True)
class NoTeacher:
    """What stands in for a teacher where words' times are known: the tokenizer that they are carried over to."""

    tokenizer: Tokenizer
    sample_rate: int

    @property
    def period_samples(self) -> int:
        """10 ms: what the report counts scores by."""
        return self.sample_rate // 100

    def state_dict(self) -> dict[str, Tensor]:
        """No weights."""
        return {}


class WordTimesAligner(ABC):
    """Spreads words onto the teacher's tokens by the rule of reallm/aligners/retokenize.py.

    The teacher is anything with a ``tokenizer`` and a ``sample_rate``: its scores are not used, nor is the audio. Words are compared
    without regard to case, and ``<unk>`` may be any word. A word's score is the logarithm of its confidence.
    """

    reads_audio = False
    source: str  # what failures call it

    @abstractmethod
    def words_of(self, utterance: str) -> list[TimedWord] | None:
        """The words of an utterance in order of time, silences left out; None where it is not there."""

    def align(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[Alignment | AlignmentFailure]:
        """One alignment an utterance; fails where there is no such utterance, or one with other words."""
        return [self._align(*row, teacher) for row in zip(batch.ids, batch.wav_lens.tolist(), token_ids, strict=True)]

    def _align(self, utterance: str, samples: int, token_ids: Tensor, teacher: Any) -> Alignment | AlignmentFailure:
        words = self.words_of(utterance)
        if words is None:
            return AlignmentFailure(f"not in {self.source}")
        if len(token_ids) == 0:
            return AlignmentFailure("empty transcript")
        if not words:
            return AlignmentFailure(f"without words in {self.source}")
        rate = int(teacher.sample_rate)
        starts = torch.tensor([round(start * rate) for start, _, _, _ in words], dtype=torch.int64).clamp(max=samples)
        ends = torch.tensor([round(end * rate) for _, end, _, _ in words], dtype=torch.int64).clamp(max=samples)
        scores = torch.tensor([math.log(confidence) for _, _, _, confidence in words], dtype=torch.float64)
        said = "".join(token_pieces(teacher.tokenizer, token_ids.tolist())).split()
        pieces = [(" " if i else "") + word for i, word in enumerate(_as_said([word for _, _, word, _ in words], said))]
        alignment = Alignment(torch.arange(len(words)), starts, ends, scores, rate, float(scores.sum()))
        try:
            return spread(alignment, pieces, teacher.tokenizer, token_ids.tolist())
        except InputError as error:
            return AlignmentFailure(str(error))


def _as_said(words: list[str], said: list[str]) -> list[str]:
    """The words as the transcript writes them, where they are the same words."""
    same = len(words) == len(said) and all(a == UNKNOWN or a.casefold() == b.casefold() for a, b in zip(words, said, strict=True))
    return said if same else words
