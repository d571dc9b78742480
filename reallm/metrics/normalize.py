"""Texts as they are compared when they are scored: the same rule for what was said and for what was recognized."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from reallm.errors import InputError, nearest
from reallm.metrics.hypotheses import Recognized
from reallm.metrics.references import Reference

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇`´", "'"))
DASHES = re.compile(r"[-‐-―_/]+")


def librispeech(word: str) -> list[str]:
    """Upper case, without punctuation but for apostrophes; dashes part words. Digits stay digits."""
    text = DASHES.sub(" ", unicodedata.normalize("NFKC", word.translate(APOSTROPHES))).upper()
    parts = ("".join(c for c in part if c == "'" or unicodedata.category(c)[0] in "LMN") for part in text.split())
    return [part for part in parts if part.strip("'")]


NORMALIZATIONS: dict[str, Callable[[str], list[str]]] = {"none": lambda word: [word], "librispeech": librispeech}


def normalized(
    name: str, recognized: Sequence[Recognized], references: Mapping[str, Reference]
) -> tuple[list[Recognized], dict[str, Reference]]:
    """Hypotheses and references with normalized words; what a word becomes has its times, and nothing where nothing is left.

    Raises InputError for an unknown normalization.
    """
    if name not in NORMALIZATIONS:
        raise InputError(f"unknown normalization '{name}'{nearest(name, NORMALIZATIONS)}: one of {', '.join(NORMALIZATIONS)}")
    split = NORMALIZATIONS[name]

    def recognize(hyp: Recognized) -> Recognized:
        if name == "none":
            return hyp
        words = [dataclasses.replace(word, word=part) for word in hyp.words for part in split(word.word)]
        n_best = hyp.n_best and [
            dataclasses.replace(one, text=" ".join(p for w in one.text.split() for p in split(w))) for one in hyp.n_best
        ]
        return dataclasses.replace(hyp, words=words, text=" ".join(word.word for word in words), n_best=n_best)

    def refer(ref: Reference) -> Reference:
        parts = [split(word) for word in ref.words]
        return dataclasses.replace(
            ref,
            words=[part for of_word in parts for part in of_word],
            spoken=[dataclasses.replace(w, word=p) for w, of_word in zip(ref.spoken, parts, strict=False) for p in of_word],
            recordings=[r for r, of_word in zip(ref.recordings, parts, strict=True) for _ in of_word],
        )

    return [recognize(hyp) for hyp in recognized], {key: refer(ref) for key, ref in references.items()}
