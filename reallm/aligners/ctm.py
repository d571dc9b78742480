"""Word times from a CTM file (NIST sclite), made by whatever aligner the user trusts, carried onto our tokens."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.retokenize import spread
from reallm.errors import InputError
from reallm.protocols import AlignmentFailure
from reallm.registry import register
from reallm.types import Alignment, Batch

CTMWord = tuple[float, float, str, float]  # start and end in seconds, word, confidence


@register("aligner", "ctm")
class CTMAligner:
    """Alignments read from a CTM file with the lines ``utterance channel start duration word [confidence]``.

    Args:
        path: the file; times in seconds from the utterance's start; lines that begin with ``;;`` are comments.

    Words are spread onto the teacher's tokens by the rule of reallm/aligners/retokenize.py. The teacher is any system: its
    ``tokenizer`` and ``sample_rate`` are used, its scores are not. A word's score is the logarithm of its confidence.

    Raises InputError for a missing file or a line that is not CTM.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._utterances = read_ctm(self.path)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "CTMAligner":
        """Three words of one utterance ``utt``, stored in ``folder`` (default: one that goes with the process)."""
        from reallm.tokenizers.character import process_folder

        path = (folder or process_folder()) / "tiny.ctm"
        path.write_text(";; three words\nutt 1 0.10 0.30 the 0.9\nutt 1 0.45 0.25 lazy\nutt 1 0.80 0.15 dog\n", encoding="utf-8")
        return cls(path)

    def backend_version(self) -> tuple[str, str]:
        """What is stored beside the alignments: "ctm" and the begin of the file's sha256."""
        return "ctm", hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]

    def align(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[Alignment | AlignmentFailure]:
        """One alignment an utterance; fails where the file has no such utterance, or other words."""
        return [self._align(*row, teacher) for row in zip(batch.ids, batch.wav_lens.tolist(), token_ids, strict=True)]

    def _align(self, utterance: str, samples: int, token_ids: Tensor, teacher: Any) -> Alignment | AlignmentFailure:
        words = self._utterances.get(utterance)
        if words is None:
            return AlignmentFailure(f"not in {self.path.name}")
        if len(token_ids) == 0:
            return AlignmentFailure("empty transcript")
        rate = int(teacher.sample_rate)
        starts = torch.tensor([round(start * rate) for start, _, _, _ in words], dtype=torch.int64).clamp(max=samples)
        ends = torch.tensor([round(end * rate) for _, end, _, _ in words], dtype=torch.int64).clamp(max=samples)
        scores = torch.tensor([math.log(confidence) for _, _, _, confidence in words], dtype=torch.float64)
        pieces = [(" " if i else "") + word for i, (_, _, word, _) in enumerate(words)]
        alignment = Alignment(torch.arange(len(words)), starts, ends, scores, rate, float(scores.sum()))
        try:
            return spread(alignment, pieces, teacher.tokenizer, token_ids.tolist())
        except InputError as error:
            return AlignmentFailure(str(error))


def read_ctm(path: Path) -> dict[str, list[CTMWord]]:
    """The words of each utterance, sorted by start. Raises InputError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a CTM file ({error}): name a text file") from None
    utterances: dict[str, list[CTMWord]] = {}
    channels: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            utterance, channel, start, duration, word = fields[:5]
            begin, length, confidence = float(start), float(duration), float(fields[5]) if len(fields) > 5 else 1.0
            if not (begin >= 0 and length >= 0 and 0 <= confidence <= 1):
                raise ValueError
        except ValueError:
            raise InputError(f"{path}:{number}: {line!r} is not 'utterance channel start duration word [confidence]': correct it") from None
        if channels.setdefault(utterance, channel) != channel:
            raise InputError(f"{path}:{number}: utterance '{utterance}' has the channels {channels[utterance]} and {channel}: keep one")
        utterances.setdefault(utterance, []).append((begin, begin + length, word, max(confidence, 1e-10)))
    if not utterances:
        raise InputError(f"{path} holds no words: name a CTM file")
    return {utterance: sorted(words, key=lambda w: w[0]) for utterance, words in utterances.items()}
