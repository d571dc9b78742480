"""Synthetic speech of any size for pre-training: every English voice of espeak-ng; those of dev and test are heard nowhere else."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from lhotse.cut import Cut

from reallm.data.corpora.manifest import Utterance, cuts_of, write_manifest
from reallm.data.corpora.spoken_text import (
    RATE,
    SPOKEN,
    TEXTS,
    Manner,
    Saying,
    Speaker,
    at_level,
    made_of,
    refuse_another,
    say,
    sayings,
    sentences,
)
from reallm.data.files import atomic_folder
from reallm.data.synthesis import DIALECTS, human_variants
from reallm.errors import InputError
from reallm.jobs import processes

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


def prepare(
    text: Path, out: Path, options: SyntheticOptions, tick: Callable[[float], None] = lambda seconds: None, jobs: int = 1
) -> dict[str, Any]:
    """Speak ``out``/speech, whole or not at all, and write ``out``/{train,dev,test}.jsonl.gz. Returns what ``corpus.json`` holds.

    Speech of equal options and text is left as it is.

    Args:
        text: a folder with train.txt, dev.txt and test.txt: the sentences of a split come from its own file.
        tick: is told the seconds that were just spoken.
        jobs: processes that speak; what they say does not depend on their number (but lengths do, by hundredths of a second:
            espeak-ng remembers what it said before).

    Raises InputError for more voices than espeak-ng has, where there is no text, and where ``out`` holds other speech.
    """
    texts = {split: sentences(text, name, options.words) for split, name in TEXTS.items()}
    speakers = speakers_of(options.voices)
    made = made_of(text, **{**vars(options), "words": list(options.words)})
    root = (out / "speech").resolve()
    if root.is_dir():
        refuse_another(root, MARKER, made)
    else:
        limits = {"dev": options.dev_utterances, "test": options.test_utterances}
        with atomic_folder(root) as folder, _speakers(jobs) as speak:
            for number, split in enumerate(TEXTS):
                rng, manner = np.random.default_rng([options.seed, number]), MANNERS[options.manner]
                # The level is drawn between one saying and the next.
                planned = ((saying, rng.uniform(*manner.level)) for saying in sayings(texts[split], speakers[split], manner, rng))
                listing = _write_split(folder, split, planned, limits.get(split), options.hours * 3600, tick, speak)
                (folder / f"{split}.json").write_text(json.dumps(listing, indent=0) + "\n", encoding="utf-8")
            (folder / MARKER).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    record: dict[str, Any] = {}
    for split in TEXTS:
        record = write_manifest(_cuts(root, split), {}, root, out, split, CORPUS, False, SPOKEN)
    return record


Utterances = list[tuple[Path, Saying, float]]  # each: the file, how it is said, its level
Speak = Callable[[Utterances], Iterable[float]]
PART = 16  # utterances that a process speaks at a time


def _speak(file: Path, saying: Saying, level: float) -> float:
    """Write the file; returns its seconds."""
    audio = at_level(say(saying), level)
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, audio, RATE, subtype="PCM_16")
    return len(audio) / RATE


def _speak_all(utterances: Utterances) -> list[float]:
    return [_speak(*each) for each in utterances]


@contextmanager
def _speakers(jobs: int) -> Iterator[tuple[Speak, int]]:
    """What speaks utterances, and how many it is to be given at a time."""
    if jobs == 1:
        yield lambda utterances: (_speak(*each) for each in utterances), 1
        return
    with processes(jobs) as (submit, _):

        def speak(utterances: Utterances) -> Iterator[float]:
            parts = [submit(_speak_all, utterances[first : first + PART]) for first in range(0, len(utterances), PART)]
            return (seconds for part in parts for seconds in part.result())

        yield speak, 4 * PART * jobs


def _write_split(
    root: Path,
    split: str,
    planned: Iterator[tuple[Saying, float]],
    utterances: int | None,
    seconds: float,
    tick: Callable[[float], None],
    speak: tuple[Speak, int],
) -> list[dict[str, str]]:
    """Write ``utterances``, or (None) as many as ``seconds`` take, below ``root``/``split``; returns what each is."""
    listing: list[dict[str, str]] = []
    done = 0.0

    def enough() -> bool:
        return done >= seconds if utterances is None else len(listing) == utterances

    while not enough():
        several = speak[1] if utterances is None else min(speak[1], utterances - len(listing))
        numbers = range(len(listing), len(listing) + several)
        names = [f"{split}-{number:06d}" for number in numbers]
        paths = [Path(split) / f"{number // FOLDER_OF:03d}" / f"{name}.flac" for number, name in zip(numbers, names, strict=True)]
        batch = list(islice(planned, several))
        lengths = speak[0]([(root / path, *each) for path, each in zip(paths, batch, strict=True)])
        for name, path, (saying, _), length in zip(names, paths, batch, lengths, strict=True):
            if enough():
                (root / path).unlink()
                continue
            listing.append({"id": name, "path": str(path), "text": saying.text, "speaker": saying.speaker.name})
            done += length
            tick(length)
    return listing


def _cuts(root: Path, split: str) -> list[Cut]:
    listing = json.loads((root / f"{split}.json").read_text(encoding="utf-8"))
    cuts, skipped = cuts_of([Utterance(u["id"], root / u["path"], u["text"], u["speaker"]) for u in listing], {})
    assert not skipped, "they were written here"
    return cuts
