"""Synthetic speech of any size for pre-training: every English voice of espeak-ng; those of dev and test are heard nowhere else."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lhotse.cut import Cut

from reallm.data.corpora.manifest import Utterance, cuts_of, write_manifest
from reallm.data.corpora.speaking import Planned, whole_corpus
from reallm.data.corpora.spoken_text import SPOKEN, TEXTS, Manner, Saying, Speaker, made_of, refuse_another, sayings, sentences
from reallm.data.files import atomic_write
from reallm.data.synthesis import DIALECTS, human_variants
from reallm.errors import InputError
from reallm.jobs import ALONE, Tick, Workers

CORPUS = "sentences spoken by espeak-ng"
MARKER = "made_of.json"
HELD_OUT = {"test": 8, "dev": 4}  # kinds of voice; each is there in every dialect
FOLDER_OF = 1000  # utterances in a folder
MANNERS = {
    # Learners speak slowly, word by word; children's vocal tracts are short.
    "wide": Manner(
        words_per_minute=(90, 230), pitch=(15, 95), pitch_range=(20, 90), word_gap=(2, 30), faster=(0.9, 1.2), silence=(0.05, 0.5)
    ),
    "even": Manner(words_per_minute=(140, 210), pitch=(30, 70), pitch_range=(30, 70)),
}


@dataclass(frozen=True)
class SyntheticOptions:
    """What is spoken.

    Args:
        hours: of training speech, at least.
        voices: of training; 0 = all that are not held out.
        manner: how they speak: "wide", with every variation that there is, or "even".
        dev_utterances, test_utterances: of voices that are not in training.
        words: of a sentence, at least and at most.
        seed: of everything that is drawn.
    """

    hours: float = 1.0
    voices: int = 0
    manner: Literal["wide", "even"] = "wide"
    dev_utterances: int = 100
    test_utterances: int = 300
    words: tuple[int, int] = (2, 20)
    seed: int = 1


def family(variant: str) -> str:
    """Variants of one family sound alike: ``steph2`` and ``steph``; but ``f1`` and ``f2`` are different people."""
    name = variant.rstrip("0123456789").lower()
    return variant if len(name) == 1 else name


def speakers_of(voices: int = 0) -> dict[str, list[Speaker]]:
    """The speakers of test, dev and train (the first ``voices``; 0 = all), always the same. No family of variants is in two of them.

    Raises InputError for more voices than there are.
    """
    known = human_variants()
    families = sorted({family(variant) for variant in known})
    order = [families[n] for n in np.random.default_rng(0).permutation(len(families))]
    parts: dict[str, list[Speaker]] = {}
    first = 0
    for part, count in {**HELD_OUT, "train": len(order)}.items():
        variants = [variant for variant in known if family(variant) in order[first : first + count]]
        named = [f"{dialect}+{variant}" for dialect in DIALECTS for variant in variants]
        parts[part] = [Speaker(voice, voice) for voice in named]
        first += count
    train = parts["train"]
    if voices > len(train):
        held_out = len(parts["test"]) + len(parts["dev"])
        raise InputError(f"{voices} synthetic voices were asked for: at most {len(train)} can be had, since {held_out} are held out")
    mixed = [train[n] for n in np.random.default_rng(1).permutation(len(train))]
    parts["train"] = mixed[:voices] if voices else mixed
    return parts


def prepare(text: Path, out: Path, options: SyntheticOptions, workers: Workers = ALONE, tick: Tick = lambda count: None) -> dict[str, Any]:
    """Speak ``out``/speech, whole or not at all, and write ``out``/{train,dev,test}.jsonl.gz. Returns what ``corpus.json`` holds.

    Speech of equal options and text is left as it is.

    Args:
        text: a folder with train.txt, dev.txt and test.txt: the sentences of a split come from its own file.
        workers: who speaks: to the same bytes, with one version of espeak-ng.
        tick: is told how many utterances were just spoken.

    Raises InputError for more voices than espeak-ng has, where there is no text, and where ``out`` holds other speech; and as
    :func:`reallm.jobs.in_shards`.
    """
    texts = {split: sentences(text, name, options.words) for split, name in TEXTS.items()}
    speakers = speakers_of(options.voices)
    made = made_of(text, **{**vars(options), "words": list(options.words)})
    root = (out / "speech").resolve()
    if root.is_dir():
        refuse_another(root, MARKER, made)
    else:
        limits = {"dev": options.dev_utterances, "test": options.test_utterances}
        with whole_corpus(root, MARKER, made, workers, tick) as they:
            for number, split in enumerate(TEXTS):
                rng, manner = np.random.default_rng([options.seed, number]), MANNERS[options.manner]
                plan = _plan(split, sayings(texts[split], speakers[split], manner, rng))
                spoken = they.speak(split, plan, limits.get(split), options.hours * 3600)
                listing = [
                    {"id": Path(s.path).stem, "path": s.path, "text": s.saying.text, "speaker": s.saying.speaker.name} for s in spoken
                ]
                with atomic_write(they.folder / f"{split}.json") as file:
                    file.write(json.dumps(listing, indent=0) + "\n")
    record: dict[str, Any] = {}
    for split in TEXTS:
        record = write_manifest(_cuts(root, split), {}, root, out, split, CORPUS, False, SPOKEN)
    return record


def _plan(split: str, said: Iterable[Saying]) -> Iterator[Planned]:
    return ((f"{split}/{number // FOLDER_OF:03d}/{split}-{number:06d}.flac", saying) for number, saying in enumerate(said))


def _cuts(root: Path, split: str) -> list[Cut]:
    listing = json.loads((root / f"{split}.json").read_text(encoding="utf-8"))
    cuts, skipped = cuts_of([Utterance(u["id"], root / u["path"], u["text"], u["speaker"]) for u in listing], {})
    assert not skipped, "they were written here"
    return cuts
