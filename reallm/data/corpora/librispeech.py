"""LibriSpeech (Panayotov et al. 2015, OpenSLR 12): its parts on disk or downloaded, and its manifests by lhotse's own recipe.

``LibriSpeech/PART/SPEAKER/CHAPTER/``: ``SPEAKER-CHAPTER.trans.txt`` (an id and a transcript a line) and ``ID.flac``, 16 kHz.
"""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lhotse.cut import Cut
from lhotse.recipes.librispeech import parse_utterance

from reallm import fingerprints
from reallm.data.corpora.manifest import check_files, keep_splits, write_manifest
from reallm.data.corpora.spoken_text import SPOKEN
from reallm.data.corpora.text_lines import text_lines
from reallm.data.download import DownloadError, Progress, fetch
from reallm.data.files import atomic_folder
from reallm.errors import InputError
from reallm.jobs import ALONE, Workers

URL = "https://www.openslr.org/resources/12"
LICENCE = "CC BY 4.0 (openslr.org/12)"
FOLDER = "LibriSpeech"
SYNTHETIC = "SYNTHETIC"  # a file in the folder of a corpus whose speech is not real
DATA_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11 before 3.11.4
TO_DOWNLOAD = "leave --corpus out and unset REALLM_DATA to download"
EVALUATION = ("dev-clean", "dev-other", "test-clean", "test-other")
TRAIN_SETS = {
    "100": ("train-clean-100",),
    "460": ("train-clean-100", "train-clean-360"),
    "960": ("train-clean-100", "train-clean-360", "train-other-500"),
}
# Utterances of each part, and the sha256 of its archive.
PARTS = {
    "dev-clean": (2703, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (2864, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (2620, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (2939, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": (28539, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (104014, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (148688, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}


def parts_of(train_sets: str) -> tuple[str, ...]:
    """The parts that a recipe with 100, 460 or 960 hours of training needs. Raises InputError for another number."""
    if train_sets not in TRAIN_SETS:
        raise InputError(f"--train-sets {train_sets}: one of {', '.join(TRAIN_SETS)} (hours)")
    return EVALUATION + TRAIN_SETS[train_sets]


def download(target: Path, parts: Sequence[str], announce: Callable[[str], None] = print, progress: Progress = lambda d, t: None) -> Path:
    """Fetch and unpack the parts that ``target``/LibriSpeech lacks; each is there whole or not at all.

    What was fetched is removed when it is unpacked. A download that was cut off, here or in a run before, goes on where it was.
    An archive ``target``/PART.tar.gz that somebody put there is taken in place of a download, and stays.
    Raises InputError where a part cannot be had, and for an archive with another checksum than OpenSLR's.
    """
    root = target / FOLDER
    for part in parts:
        if (root / part).is_dir():
            continue
        theirs = target / f"{part}.tar.gz"
        archive = theirs if theirs.is_file() else target / f".{theirs.name}"
        try:
            if archive == theirs:
                announce(f"unpacking {theirs}")
                _compare_checksum(theirs, PARTS[part][1])
            elif not archive.is_file():
                announce(f"downloading {part}")
                fetch(f"{URL}/{theirs.name}", archive, PARTS[part][1], progress)
            _unpack(archive, part, root)
        except DownloadError as error:
            raise InputError(f"{part} of LibriSpeech cannot be had: {error}") from None
        if archive != theirs:
            archive.unlink()
    return root


def _compare_checksum(archive: Path, sha256: str) -> None:
    found = fingerprints.of_file(archive)
    if found != sha256:
        raise DownloadError(f"{archive} has the sha256 {found}, not {sha256}: remove it to download, or bring the right one")


def _unpack(archive: Path, part: str, root: Path) -> None:
    """The folder LibriSpeech/``part`` of an archive as ``root``/``part``."""
    within = f"{FOLDER}/{part}/"
    try:
        with atomic_folder(root / part) as folder, tarfile.open(archive) as tar:
            for member in tar:
                if member.name.startswith(within) and (member.isfile() or member.isdir()):
                    member.name = member.name.removeprefix(within)
                    if not (folder / member.name).resolve().is_relative_to(folder.resolve()):
                        raise tarfile.ReadError(f"{member.name} in it lies outside of {within}")
                    tar.extract(member, folder, **DATA_FILTER)
            if not any(folder.iterdir()):
                raise tarfile.ReadError(f"no folder {within} in it")
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:  # not OSError: a full disk is another matter
        raise DownloadError(f"{archive} is no archive of that part ({error}): remove it and start again") from error


def find_root(folder: Path) -> Path:
    """``folder`` or ``folder``/LibriSpeech: which one holds parts. Raises InputError where none does."""
    for root in (folder, folder / FOLDER):
        if any((root / part).is_dir() for part in PARTS):
            return root
    raise InputError(f"corpus {folder} holds no part of LibriSpeech, such as test-clean: name the folder that does, or {TO_DOWNLOAD}")


def transcripts(folder: Path) -> dict[str, str]:
    """The lines of a part's transcripts by id, sorted. Raises InputError for a line without a text, or of another chapter."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*/*/*.trans.txt")):
        chapter = file.name.removesuffix(".trans.txt")
        for number, line in enumerate(text_lines(file), start=1):
            if not line.strip():
                continue
            name, _, text = line.strip().partition(" ")
            if not text.strip() or name.rpartition("-")[0] != chapter or chapter != f"{file.parts[-3]}-{file.parts[-2]}":
                raise InputError(f"{file} line {number}: '{line.strip()}' is not '{chapter}-NNNN TEXT': unpack the archive again")
            found[name] = line
    return dict(sorted(found.items()))


def check_complete(root: Path, parts: Sequence[str], subset: bool) -> dict[str, dict[str, str]]:
    """The transcripts of each part that is there.

    Args:
        subset: parts may be missing, and have fewer utterances than LibriSpeech's; but all recordings of those. A corpus that says
            it is synthetic is always taken as it is.

    Raises InputError that names every part which is missing, or lacks transcripts or recordings.
    """
    subset = subset or (root / SYNTHETIC).is_file()
    found: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    for part in parts:
        if not (root / part).is_dir():
            wrong += [] if subset else [f"{part} is missing"]
            continue
        lines = transcripts(root / part)
        absent = [name for name in lines if not _audio(root / part, name).is_file()]
        if not lines:
            wrong.append(f"{part} has no transcripts PART/SPEAKER/CHAPTER/*.trans.txt")
        elif absent:
            wrong.append(
                f"{part} lacks the recordings of {len(absent)} of {len(lines)} utterances, such as {_audio(root / part, absent[0])}"
            )
        elif len(lines) < PARTS[part][0] and not subset:
            wrong.append(f"{part} has {len(lines)} of {PARTS[part][0]} utterances")
        else:
            found[part] = lines
    if wrong or not found:
        raise InputError(
            f"{root} is not all of it: {'; '.join(wrong) or 'no part is there'}: download and unpack those parts again (openslr.org/12), "
            f"choose other --train-sets, {'' if subset else 'take what there is with --subset, '}or {TO_DOWNLOAD}"
        )
    return found


def _audio(part: Path, name: str) -> Path:
    speaker, chapter, _ = name.split("-")
    return part / speaker / chapter / f"{name}.flac"


def prepare(
    root: Path,
    out: Path,
    train_sets: str = "960",
    subset: bool = False,
    workers: Workers = ALONE,
    begin: Callable[[int], None] = lambda files: None,
    tick: Callable[[int], None] = lambda files: None,
) -> dict[str, Any]:
    """Make OUT/{train,dev-clean,dev-other,test-clean,test-other}.jsonl.gz of a corpus on disk. Returns what ``corpus.json`` holds.

    Args:
        root: the folder that holds the parts.
        train_sets: hours of training data: "100", "460" or "960".
        subset: see :func:`check_complete`.
        workers: who checks the recordings.
        begin, tick: are told how many recordings there are to check, and how many were just done.

    Raises InputError for a corpus that is not complete, and for broken recordings (over 1 %).
    """
    root = root.resolve()  # manifests hold absolute paths: they are read from anywhere
    real = not (root / SYNTHETIC).is_file()
    found = check_complete(root, parts_of(train_sets), subset)
    files = {_audio(root / part, name): name for part, lines in found.items() for name in lines}
    begin(len(files))
    broken = {files[path]: why for path, why in check_files(files, workers, tick, out).items()}
    splits = {**{part: (part,) for part in EVALUATION}, "train": TRAIN_SETS[train_sets]}
    written = []
    for split, parts in splits.items():
        present = [part for part in parts if part in found]
        cuts = [_cut(root / part, line) for part in present for name, line in found[part].items() if name not in broken]
        skipped = {name: why for name, why in broken.items() if any(name in found[part] for part in present)}
        if present:
            corpus = "LibriSpeech" if real else "LibriSpeech spoken by espeak-ng"
            write_manifest(cuts, skipped, root, out, split, corpus, real, LICENCE if real else SPOKEN)
            written.append(split)
    return keep_splits(out, written)


def _cut(part: Path, line: str) -> Cut:
    parsed = parse_utterance(part, line, {})
    assert parsed is not None, "the recordings were checked"
    recording, supervision = parsed
    cut: Cut = recording.to_cut()
    cut.id, cut.supervisions = supervision.id, [supervision]
    return cut
