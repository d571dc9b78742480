"""A Kaldi data folder: ``wav.scp`` and ``text``, and where they are there ``segments`` and ``utt2spk``."""

from collections.abc import Callable
from pathlib import Path

from reallm.data.corpora.manifest import Utterance
from reallm.data.corpora.text_lines import text_lines
from reallm.errors import InputError

TO_THE_END = -1.0  # as an end in ``segments``: Kaldi's extract-segments


def _table(path: Path) -> dict[str, str]:
    """First word of each line → the rest; between them spaces or tabs, as Kaldi reads it.

    Raises InputError for an id that comes twice, and for commas in the place of the spaces.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        key, rest = [*line.split(maxsplit=1), ""][:2]
        if not rest and "," in key:
            raise InputError(f"{path} line {number}: '{key}' has commas: separate with spaces or tabs, not commas")
        if key in table:
            raise InputError(f"{path} line {number}: '{key}' is there twice: make the ids unique")
        table[key] = rest.strip()
    return table


def read_kaldi(folder: Path, announce: Callable[[str], None] = print) -> list[Utterance]:
    """The utterances of a Kaldi data folder: those in ``text``; that others are left out is announced.

    Relative paths in ``wav.scp`` start from here, or else from the folder. A segment that ends at -1 lasts to the end of its recording.

    Raises InputError for a missing folder or file, text that is not UTF-8, commands in ``wav.scp``, and
    ids that do not match.
    """
    if not folder.is_dir():
        raise InputError(f"Kaldi folder {folder} is missing: give the folder that holds wav.scp and text")
    for name in ("wav.scp", "text"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: a Kaldi data folder needs wav.scp and text")
    paths: dict[str, Path] = {}
    for key, value in _table(folder / "wav.scp").items():
        if value.endswith("|"):
            raise InputError(f"{folder / 'wav.scp'}: '{key}' is a command: write its audio to a file and name that")
        path = Path(value)
        paths[key] = (path if path.is_absolute() or path.exists() else folder / path).resolve()
    texts = _table(folder / "text")
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    segments: dict[str, tuple[str, float | None, float | None]] = {key: (key, None, None) for key in {**texts, **paths}}
    if (folder / "segments").is_file():
        segments = {}
        for key, value in _table(folder / "segments").items():
            try:
                recording, start, end = value.split()
                segments[key] = (recording, float(start), None if float(end) == TO_THE_END else float(end))
            except ValueError:
                raise InputError(f"{folder / 'segments'}: '{key} {value}' is not 'utterance recording start end'") from None
    untranscribed = [key for key in segments if key not in texts]
    if untranscribed:
        announce(
            f"{len(untranscribed)} of {len(segments)} utterances of {folder} are not in text and left out, such as '{untranscribed[0]}'"
        )
    utterances = []
    for key, text in texts.items():
        if key not in segments:
            raise InputError(f"{folder}: utterance '{key}' is in text but not in segments: remove it, or add it there")
        recording, begin, finish = segments[key]
        if recording not in paths:
            raise InputError(f"{folder}: recording '{recording}' of utterance '{key}' is not in wav.scp: add it")
        utterances.append(Utterance(key, paths[recording], text, speakers.get(key), begin, finish))
    return utterances
