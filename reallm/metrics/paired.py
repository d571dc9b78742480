"""Systems that decoded the same utterances, compared group by group: utterances, or the recordings that they were made of."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from reallm.data.cuts import read_cuts
from reallm.errors import InputError
from reallm.metrics.hypotheses import read_hypotheses
from reallm.metrics.normalize import normalized
from reallm.metrics.references import Reference, references
from reallm.metrics.statistics import PairedDifference, paired_bootstrap
from reallm.metrics.word_errors import align_words, errors_by_group

Errors = Mapping[str, tuple[float, int]]  # of each group: errors and words


def group_errors(folder: Path) -> dict[str, tuple[float, int]]:
    """Of each group in a folder that ``reallm decode`` wrote, its errors and words, normalized as its results are.

    The groups are those that ``wer_ci95`` of its results draws (:func:`reallm.metrics.score.score`): recordings, which the manifest
    knows, or utterances; not speakers.

    Raises InputError where its hypotheses are missing, or were written without the references, and where a manifest that is needed
    is gone or another.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    recognized = read_hypotheses(folder / "hyps.jsonl")
    for utterance in recognized:
        if utterance.ref is None:
            raise InputError(f"{folder / 'hyps.jsonl'}: utterance '{utterance.id}' has no reference: decode again")
    said = {u.id: Reference(u.id, spoken := (u.ref or "").split(), [], u.seconds, recordings=[u.id] * len(spoken)) for u in recognized}
    if results.get("wer_ci95_over") == "recordings":
        said = _with_recordings(said, Path(results["manifest"]), folder)
    found: dict[str, tuple[float, int]] = {}
    recognized, said = normalized(results.get("normalization", "none"), recognized, said)
    for hyp in recognized:
        recordings = said[hyp.id].recordings
        pairs = align_words(said[hyp.id].words, [word.word for word in hyp.words])
        # Also those without a word: an insertion there is an error of the one system alone.
        counted = {**dict.fromkeys(recordings or [hyp.id], (0, 0)), **errors_by_group(pairs, recordings, hyp.id)}
        for group, (errors, words) in counted.items():
            before = found.get(group, (0.0, 0))
            found[group] = (before[0] + errors, before[1] + words)
    return found


def _with_recordings(said: Mapping[str, Reference], manifest: Path, folder: Path) -> dict[str, Reference]:
    """The references as their manifest has them, with what each word was cut from."""
    if not manifest.is_file():
        raise InputError(f"{folder}: its intervals draw recordings, which {manifest} names, and that is gone: put it back, or decode again")
    known = references(cut for cut in read_cuts(manifest) if cut.id in said)
    other = [name for name, reference in said.items() if name not in known or known[name].words != reference.words]
    if other:
        raise InputError(f"{folder}: {manifest} is another than the one that was decoded, such as in '{other[0]}': decode again")
    return known


def mean_errors(runs: Sequence[Errors]) -> dict[str, tuple[float, int]]:
    """The mean over several runs (seeds) of one system. Raises InputError where they did not decode the same words."""
    first = runs[0]
    for run in runs[1:]:
        _refuse_others(first, run)
    return {name: (sum(run[name][0] for run in runs) / len(runs), words) for name, (_, words) in first.items()}


def compare(errors: Errors, other: Errors, seed: int = 0) -> PairedDifference:
    """Paired bootstrap over the groups. Raises InputError where the two did not decode the same words."""
    _refuse_others(errors, other)
    difference = paired_bootstrap([errors[n][0] for n in errors], [other[n][0] for n in errors], [errors[n][1] for n in errors], seed)
    if difference is None:
        raise InputError("the references hold no words: nothing to compare")
    return difference


def _refuse_others(one: Errors, two: Errors) -> None:
    different = [name for name in {**one, **two} if name not in one or name not in two or one[name][1] != two[name][1]]
    if different:
        raise InputError(
            f"the words of {len(different)} utterances or recordings are not the same in both, such as '{different[0]}': "
            "compare decodings of one manifest"
        )
