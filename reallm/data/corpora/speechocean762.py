"""speechocean762 (Zhang et al. 2021, OpenSLR 101): read English by Mandarin speakers, half of them children, 16 kHz.

Read as it comes (``train/{wav.scp,text,utt2spk,spk2age}``, ``WAVE/``; likewise ``test/``), or as tables with audio of any kind:
``train.tsv`` and ``test.tsv`` with the columns utt_id, speaker, age, path and text.
"""

from collections.abc import Callable, Sequence
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
    workers: Workers = ALONE,
    begin: Callable[[int], None] = lambda files: None,
    tick: Callable[[int], None] = lambda files: None,
) -> dict[str, Any]:
    """Make ``out``/{train,dev,test-adult,test-child}.jsonl.gz. Returns what ``corpus.json`` holds.

    Args:
        data: the corpus, or a folder that holds ``speechocean762``.
        dev_speakers: taken out of train, as many adults as children (one adult more, if it is odd).
        seed: of the choice of these.
        workers: who checks the recordings.
        begin, tick: are told how many recordings there are to check, and how many were just done.

    Raises InputError for a folder that does not hold the corpus, a speaker without age, a split without utterances, and broken
    recordings (over 1 %).
    """
    root = find_root(data)
    train, test = _read(root, "train"), _read(root, "test")
    ages = {**_ages(root, "train"), **_ages(root, "test")}
    for utterance in [*train, *test]:
        if utterance.speaker not in ages:
            raise InputError(f"{root}: the age of speaker '{utterance.speaker}' of utterance '{utterance.id}' is not known: add it")
    common = {u.speaker for u in train} & {u.speaker for u in test}
    if common:
        raise InputError(
            f"{root}: {len(common)} speakers are in train and in test, such as '{min(map(str, common))}': unpack the corpus again"
        )
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
        if all((root / f"{part}.tsv").is_file() or (root / part / "wav.scp").is_file() for part in ("train", "test")):
            return root.resolve()  # manifests hold absolute paths: they are read from anywhere
    raise InputError(f"{folder} does not hold speechocean762 (train/wav.scp or train.tsv, likewise test): name the folder that does")


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
