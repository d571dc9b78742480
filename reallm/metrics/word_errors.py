"""Word errors, counted by jiwer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class WordPair:
    """One position of an alignment: indices of the reference's and the hypothesis' word, None where there is none."""

    ref: int | None
    hyp: int | None
    correct: bool


def align_words(ref: Sequence[str], hyp: Sequence[str]) -> list[WordPair]:
    """The alignment of least errors, in order of time."""
    if not ref:
        return [WordPair(None, h, False) for h in range(len(hyp))]
    # jiwer splits at spaces; a word with one inside would shift its indices.
    alignment = jiwer.process_words(" ".join(ref), " ".join(hyp)).alignments[0]
    pairs = []
    for chunk in alignment:
        refs = range(chunk.ref_start_idx, chunk.ref_end_idx)
        hyps = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "delete":
            pairs += [WordPair(r, None, False) for r in refs]
        elif chunk.type == "insert":
            pairs += [WordPair(None, h, False) for h in hyps]
        else:
            pairs += [WordPair(r, h, chunk.type == "equal") for r, h in zip(refs, hyps, strict=True)]
    return pairs


@dataclass
class ErrorCounts:
    """Errors of some utterances."""

    words: int = 0
    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0

    @property
    def errors(self) -> int:
        """All of them."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def wer(self) -> float | None:
        """In percent; None without words."""
        return 100 * self.errors / self.words if self.words else None

    def add(self, pairs: Sequence[WordPair]) -> None:
        """Count one utterance."""
        for pair in pairs:
            self.words += pair.ref is not None
            if pair.ref is None:
                self.insertions += 1
            elif pair.hyp is None:
                self.deletions += 1
            elif not pair.correct:
                self.substitutions += 1


def errors_by_group(pairs: Sequence[WordPair], groups: Sequence[str], fallback: str) -> dict[str, tuple[int, int]]:
    """(errors, words) of each group of reference words.

    Args:
        pairs: the alignment of an utterance.
        groups: the group of each reference word.
        fallback: the group of insertions where there is no reference word.

    An insertion counts for the reference word before it, else for the one after it.
    """
    counts: dict[str, tuple[int, int]] = {}
    current = groups[0] if groups else fallback
    for pair in pairs:
        if pair.ref is not None:
            current = groups[pair.ref]
        errors, words = counts.get(current, (0, 0))
        counts[current] = (errors + (not pair.correct), words + (pair.ref is not None))
    return counts
