"""Systems that decoded the same utterances, compared group by group: utterances, the recordings that they were made of, or speakers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reallm.data.cuts import read_cuts
from reallm.errors import InputError
from reallm.metrics.hypotheses import read_hypotheses
from reallm.metrics.normalize import normalized
from reallm.metrics.references import Reference, references
from reallm.metrics.statistics import PairedDifference, paired_bootstrap
from reallm.metrics.word_errors import align_words, errors_by_group


class Group(NamedTuple):
    """What is drawn as one: an utterance, a recording that words were cut from, or a speaker."""

    errors: float  # no whole number where decodings are mixed
    words: int
    said: frozenset[tuple[str, str]]  # (id of an utterance, those of its words that are in the group)


Errors = Mapping[str, Group]  # by the name of the group


def group_errors(folder: Path, by: Literal["utterance", "speaker"] = "utterance") -> dict[str, Group]:
    """Of each group in a folder that ``reallm decode`` wrote, its errors and words, normalized as its results are.

    Args:
        folder: with hyps.jsonl and results.json.
        by: "utterance": the groups are those that ``wer_ci95`` of its results draws (:func:`reallm.metrics.score.score`): utterances,
            or recordings, which the manifest knows. "speaker": the speakers of the manifest, whose utterances are not independent.

    Raises InputError where its hypotheses are missing, or were written without the references, where a manifest that is needed
    is gone or another, and where that does not name two speakers that are needed.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    recognized = read_hypotheses(folder / "hyps.jsonl")
    for utterance in recognized:
        if utterance.ref is None:
            raise InputError(f"{folder / 'hyps.jsonl'}: utterance '{utterance.id}' has no reference: decode again")
    said = {u.id: Reference(u.id, spoken := (u.ref or "").split(), [], u.seconds, recordings=[u.id] * len(spoken)) for u in recognized}
    if by == "speaker":
        said = _of_manifest(said, results, folder, "speakers")
        _refuse_unknown_speakers(said, results)
    elif results.get("wer_ci95_over") == "recordings":
        said = _of_manifest(said, results, folder, "recordings")
    found: dict[str, Group] = {}
    recognized, said = normalized(results.get("normalization", "none"), recognized, said)
    for hyp in recognized:
        reference = said[hyp.id]
        whole = reference.speaker if by == "speaker" else hyp.id
        groups = [whole] * len(reference.words) if by == "speaker" else reference.recordings
        pairs = align_words(reference.words, [word.word for word in hyp.words])
        # Also those without a word: an insertion there is an error of the one system alone.
        counted = {**dict.fromkeys(groups or [whole], (0, 0)), **errors_by_group(pairs, groups, whole)}
        for name, (errors, words) in counted.items():
            before = found.get(name, Group(0.0, 0, frozenset()))
            own = " ".join(word for word, group in zip(reference.words, groups, strict=True) if group == name)
            found[name] = Group(before.errors + errors, before.words + words, before.said | {(hyp.id, own)})
    return found


def _of_manifest(said: Mapping[str, Reference], results: Mapping[str, Any], folder: Path, drawn: str) -> dict[str, Reference]:
    """The references as their manifest has them: with who speaks, and what each word was cut from."""
    manifest = Path(results["manifest"])
    if not manifest.is_file():
        raise InputError(f"{folder}: {drawn} are drawn, which {manifest} names, and that is gone: put it back, or decode again")
    known = references(cut for cut in read_cuts(manifest) if cut.id in said)
    other = [name for name, reference in said.items() if name not in known or known[name].words != reference.words]
    if other:
        raise InputError(f"{folder}: {manifest} is another than the one that was decoded, such as in '{other[0]}': decode again")
    return known


def _refuse_unknown_speakers(said: Mapping[str, Reference], results: Mapping[str, Any]) -> None:
    nobody = [name for name, reference in said.items() if not reference.speaker]
    if nobody:
        raise InputError(f"{results['manifest']} does not say who speaks in '{nobody[0]}': name all speakers there, or draw utterances")
    if len({reference.speaker for reference in said.values()}) == 1:
        raise InputError(f"{results['manifest']}: one speaker says all that was decoded, so there are none to draw: draw utterances")


def mix_errors(decodings: Sequence[Errors], weights: Sequence[float]) -> dict[str, Group]:
    """What is to be expected where each utterance is decoded in one of several ways, drawn with these weights.

    Args:
        decodings: of the same words.
        weights: of each decoding; their sum need not be 1.

    Raises InputError where the decodings are not of the same words.
    """
    first = decodings[0]
    for other in decodings[1:]:
        _refuse_others(first, other)
    weighed = {name: sum(weight * one[name].errors for weight, one in zip(weights, decodings, strict=True)) for name in first}
    return {name: group._replace(errors=weighed[name] / sum(weights)) for name, group in first.items()}


def mean_errors(runs: Sequence[Errors]) -> dict[str, Group]:
    """The mean over several runs (seeds) of one system. Raises InputError where they did not decode the same words."""
    return mix_errors(runs, [1] * len(runs))


def compare(errors: Errors, other: Errors, seed: int = 0) -> PairedDifference:
    """Paired bootstrap over the groups. Raises InputError where the two did not decode the same words."""
    _refuse_others(errors, other)
    words = [group.words for group in errors.values()]
    difference = paired_bootstrap([errors[n].errors for n in errors], [other[n].errors for n in errors], words, seed)
    if difference is None:
        raise InputError("the references hold no words: nothing to compare")
    return difference


def _refuse_others(one: Errors, two: Errors) -> None:
    different = [name for name in {**one, **two} if name not in one or name not in two or one[name][1:] != two[name][1:]]
    if different:
        raise InputError(
            f"what was said is not the same in both for {len(different)} utterances, recordings or speakers, such as '{different[0]}': "
            "compare decodings of one manifest that were scored alike"
        )
