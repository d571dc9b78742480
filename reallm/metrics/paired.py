"""Systems that decoded the same utterances, compared utterance by utterance."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from reallm.errors import InputError
from reallm.metrics.hypotheses import read_hypotheses
from reallm.metrics.normalize import normalized
from reallm.metrics.references import Reference
from reallm.metrics.statistics import PairedDifference, paired_bootstrap
from reallm.metrics.word_errors import ErrorCounts, align_words

Errors = Mapping[str, tuple[float, int]]  # of each utterance: errors and words


def utterance_errors(folder: Path) -> dict[str, tuple[float, int]]:
    """Of each utterance in a folder that ``reallm decode`` wrote, its errors and words, normalized as its results are.

    Raises InputError where its hypotheses are missing, or were written without the references.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    recognized = read_hypotheses(folder / "hyps.jsonl")
    for utterance in recognized:
        if utterance.ref is None:
            raise InputError(f"{folder / 'hyps.jsonl'}: utterance '{utterance.id}' has no reference: decode again")
    said = {u.id: Reference(u.id, words := (u.ref or "").split(), [], u.seconds, recordings=[u.id] * len(words)) for u in recognized}
    found = {}
    recognized, said = normalized(results.get("normalization", "none"), recognized, said)
    for hyp in recognized:
        counts = ErrorCounts()
        counts.add(align_words(said[hyp.id].words, [word.word for word in hyp.words]))
        found[hyp.id] = (float(counts.errors), counts.words)
    return found


def mean_errors(runs: Sequence[Errors]) -> dict[str, tuple[float, int]]:
    """The mean over several runs (seeds) of one system. Raises InputError where they did not decode the same words."""
    first = runs[0]
    for run in runs[1:]:
        _refuse_others(first, run)
    return {name: (sum(run[name][0] for run in runs) / len(runs), words) for name, (_, words) in first.items()}


def compare(errors: Errors, other: Errors, seed: int = 0) -> PairedDifference:
    """Paired bootstrap over utterances. Raises InputError where the two did not decode the same words."""
    _refuse_others(errors, other)
    difference = paired_bootstrap([errors[n][0] for n in errors], [other[n][0] for n in errors], [errors[n][1] for n in errors], seed)
    if difference is None:
        raise InputError("the references hold no words: nothing to compare")
    return difference


def _refuse_others(one: Errors, two: Errors) -> None:
    different = [name for name in {**one, **two} if name not in one or name not in two or one[name][1] != two[name][1]]
    if different:
        raise InputError(
            f"{len(different)} utterances are not the same in both, such as '{different[0]}': compare decodings of one manifest"
        )
