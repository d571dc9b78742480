"""speechocean762 (Zhang et al. 2021, OpenSLR 101): read English by Mandarin speakers, half of them children, 16 kHz.

Read as it comes (``train/{wav.scp,text,utt2spk,spk2age}``, ``WAVE/``; likewise ``test/``), or as tables with audio of any kind:
``train.tsv`` and ``test.tsv`` with the columns utt_id, speaker, age, path and text. As it comes it has all utterances. Tables say what
belongs to a copy: they may leave speakers out, but of each one that they list there are all utterances, and there is no audio beside.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reallm.data.corpora.kaldi import read_kaldi
from reallm.data.corpora.manifest import Utterance, check_files, cuts_of, keep_splits, write_manifest
from reallm.data.corpora.text_lines import text_lines
from reallm.data.corpora.tsv import read_tsv
from reallm.errors import InputError
from reallm.jobs import ALONE, Workers

CORPUS = "speechocean762"
LICENCE = "free for commercial and non-commercial use (openslr.org/101)"
ADULT = 16  # years, from which on a speaker is one
PARTS = {"train": 2500, "test": 2500}  # utterances of each
EACH = 20  # utterances of each speaker
AGAIN = "download or copy it again (openslr.org/101)"
# Splits, and what to do where one is empty.
LACKING = {
    "train": "train must hold speakers besides those of dev",
    "dev": "choose --dev-speakers above 0",
    "test-adult": f"test must hold speakers from {ADULT} years on",
    "test-child": f"test must hold speakers below {ADULT} years",
}


def prepare(
    data: Path,
    out: Path,
    dev_speakers: int = 8,
    seed: int = 1,
    subset: bool = False,
    workers: Workers = ALONE,
    begin: Callable[[int], None] = lambda files: None,
    tick: Callable[[int], None] = lambda files: None,
    announce: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Make ``out``/{train,dev,test-adult,test-child}.jsonl.gz. Returns what ``corpus.json`` holds.

    Args:
        data: the corpus, or a folder that holds ``speechocean762``.
        dev_speakers: taken out of train, as many adults as children (one adult more, if it is odd).
        seed: of the choice of these.
        subset: see :func:`check_complete`.
        workers: who checks the recordings.
        begin, tick: are told how many recordings there are to check, and how many were just done.
        announce: is told of a part that does not have all utterances.

    Raises InputError for a folder that does not hold the corpus, one that is not complete, a speaker without age, a split without
    utterances, and broken recordings (over 1 %).
    """
    root = find_root(data)
    train, test = check_complete(root, subset, announce)
    ages = {**_ages(root, "train"), **_ages(root, "test")}
    for utterance in [*train, *test]:
        if utterance.speaker not in ages:
            raise InputError(f"{root}: the age of speaker '{utterance.speaker}' of utterance '{utterance.id}' is not known: add it")
    held_out = _choose(sorted({str(u.speaker) for u in train}), ages, dev_speakers, seed)
    splits = {
        "train": [u for u in train if u.speaker not in held_out],
        "dev": [u for u in train if u.speaker in held_out],
        "test-adult": [u for u in test if ages[str(u.speaker)] >= ADULT],
        "test-child": [u for u in test if ages[str(u.speaker)] < ADULT],
    }
    for name, utterances in splits.items():
        if not utterances:
            raise InputError(f"{root}: no utterances for {name}: {LACKING[name]}")
    paths = [u.path for u in [*train, *test]]
    begin(len(paths))
    broken = check_files(paths, workers, tick, out)
    for name, utterances in splits.items():
        cuts, skipped = cuts_of(utterances, broken)
        write_manifest(cuts, skipped, root, out, name, CORPUS, True, LICENCE)
    return keep_splits(out, splits)


def find_root(folder: Path) -> Path:
    """``folder`` or ``folder``/speechocean762: which one holds the corpus. Raises InputError where none does."""
    for root in (folder, folder / CORPUS):
        there = [part for part in PARTS if (root / f"{part}.tsv").is_file() or (root / part / "wav.scp").is_file()]
        if len(there) == 1:
            (missing,) = set(PARTS) - set(there)
            raise InputError(f"{root} has no {missing}/wav.scp, nor {missing}.tsv, but {there[0]}: {AGAIN}")
        if there:
            return root.resolve()  # manifests hold absolute paths: they are read from anywhere
    raise InputError(f"{folder} does not hold speechocean762 (train/wav.scp or train.tsv, likewise test): name the folder that does")


def check_complete(root: Path, subset: bool, announce: Callable[[str], None] = print) -> tuple[list[Utterance], list[Utterance]]:
    """The utterances of train and test.

    Args:
        subset: there may be fewer than the corpus has, and audio that is not listed; but all recordings that are.
        announce: is told of a part that is taken though it has fewer.

    Raises InputError that names all that is missing: utterances, recordings, lines of tables; and what is there twice.
    """
    found = {part: _read(root, part) for part in PARTS}
    audio = {part: {u.path for u in utterances} for part, utterances in found.items()}
    speakers = {part: Counter(u.speaker for u in utterances if u.speaker) for part, utterances in found.items()}
    wrong, short, fewer = [], [], []
    for part, utterances in found.items():
        absent = [u.path for u in utterances if not u.path.is_file()]
        if absent:
            wrong.append(f"{part} lacks the recordings of {len(absent)} of {len(utterances)} utterances, such as {absent[0]}")
        again = [*_twice(u.id for u in utterances), *_twice(str(u.path) for u in utterances)]
        if again:
            wrong.append(f"{part} has {len(again)} ids or recordings twice, such as '{again[0]}'")
    for of, both in (("speakers", set.intersection(*map(set, speakers.values()))), ("recordings", set.intersection(*audio.values()))):
        if both:
            wrong.append(f"{len(both)} {of} are in train and in test, such as '{min(map(str, both))}'")
    for part, utterances in found.items():
        if len(utterances) >= PARTS[part]:
            continue
        count = f"{part} has {len(utterances)} of {PARTS[part]} utterances"
        partly = [speaker for speaker, said in speakers[part].items() if said < EACH]
        if subset:
            fewer.append(count)
        elif not (root / f"{part}.tsv").is_file() or not utterances:
            short.append(count)
        elif partly:
            short.append(f"{count}, and of {len(partly)} of its {len(speakers[part])} speakers, such as '{partly[0]}', not all {EACH}")
        elif unlisted := _unlisted(root, audio[part], set.union(*audio.values())):
            short.append(f"{count}, and {len(unlisted)} recordings are in no table, such as {unlisted[0]}")
        else:
            fewer.append(f"{count}, all {EACH} of each of its {len(speakers[part])} speakers")
    if wrong or short:
        less = "" if wrong or subset else ", or take what there is with --subset"
        raise InputError(f"{root} is not speechocean762 as it was published: {'; '.join([*wrong, *short])}: {AGAIN}{less}")
    for count in fewer:
        announce(f"{root}: {count}: taken as it is")
    return found["train"], found["test"]


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _unlisted(root: Path, part: set[Path], listed: set[Path]) -> list[Path]:
    """Audio in those folders of the corpus that hold recordings of a ``part``, which is not among all that are ``listed``."""
    suffixes = {path.suffix for path in part}
    found = []
    for top in (each for each in root.iterdir() if each.is_dir()):
        real = top.resolve()  # as the paths of utterances are
        if any(path.is_relative_to(real) for path in part):
            files = (Path(folder, name) for folder, _, names in os.walk(real) for name in names)
            beside = (file for file in files if file.suffix in suffixes and file not in listed)
            found += [file for file in beside if file.resolve() not in listed]  # it may be a link
    return sorted(found)


def _read(root: Path, part: str) -> list[Utterance]:
    if (root / f"{part}.tsv").is_file():
        return read_tsv(root / f"{part}.tsv")
    utterances = read_kaldi(root / part)
    # In wav.scp, paths start from the corpus.
    found = [root / u.path.relative_to(root / part) if u.path.is_relative_to(root / part) else u.path for u in utterances]
    return [Utterance(u.id, path, u.text, u.speaker) for u, path in zip(utterances, found, strict=True)]


def _ages(root: Path, part: str) -> dict[str, int]:
    """Speaker → years."""
    table = root / f"{part}.tsv"
    file = table if table.is_file() else root / part / "spk2age"
    if not file.is_file():
        raise InputError(f"{file} is missing: adults and children are scored apart, by the ages in it")
    lines = [line for line in text_lines(file) if line.strip()]
    if table.is_file():
        header = lines[0].split("\t")
        for column in ("speaker", "age"):
            if column not in header:
                raise InputError(f"{table} has no column '{column}': its first line must name tab-separated columns")
        speaker, age = header.index("speaker"), header.index("age")
        rows = [(line.split("\t")[speaker], line.split("\t")[age]) for line in lines[1:]]
    else:
        rows = [(line.split()[0], line.split()[-1]) for line in lines]
    for name, years in rows:
        if not years.isdecimal():
            raise InputError(f"{file}: the age of speaker '{name}' is '{years}': a whole number of years is needed")
    return {name: int(years) for name, years in rows}


def _choose(speakers: Sequence[str], ages: dict[str, int], count: int, seed: int) -> set[str]:
    """``count`` of the speakers: half of them children. Raises InputError where nobody would be left for training."""
    chosen: set[str] = set()
    for wanted, group in (
        (count - count // 2, [s for s in speakers if ages[s] >= ADULT]),
        (count // 2, [s for s in speakers if ages[s] < ADULT]),
    ):
        if wanted >= len(group):
            raise InputError(f"--dev-speakers {count}: train has {len(speakers)} speakers, {len(group)} of this age: choose fewer")
        chosen |= {group[n] for n in np.random.default_rng(seed).permutation(len(group))[:wanted]}
    return chosen
