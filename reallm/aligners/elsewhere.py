"""Alignments made elsewhere: a folder of CTM files, of Montreal's TextGrids, or of the public LibriSpeech alignments."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from reallm import fingerprints
from reallm.aligners.ctm import read_ctm
from reallm.aligners.word_times import TimedWord, WordTimesAligner
from reallm.errors import InputError
from reallm.registry import register

SILENCES = ("", "sil", "sp", "<eps>", "<sil>")  # in TextGrids
CTM, TEXTGRID, LIBRISPEECH = ".ctm", ".TextGrid", ".alignment.txt"
CHAPTERS = 1000  # of the public LibriSpeech alignments, kept in memory

TINY = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
1
"IntervalTier"
"words"
0
1
5
0
0.1
""
0.1
0.4
"the"
0.4
0.7
"lazy"
0.7
0.95
"dog"
0.95
1
""
"""


@register("aligner", "elsewhere")
class ElsewhereAligner(WordTimesAligner):
    """Word times of a folder and the folders in it; which kind of files it holds is seen by their names.

    - ``*.ctm``: see the aligner ``ctm``.
    - ``UTTERANCE.TextGrid``: as the Montreal Forced Aligner writes them, one file an utterance; their tier of words.
    - ``SPEAKER-CHAPTER.alignment.txt``: the alignments of LibriSpeech that lhotse reads (github.com/CorentinJ/librispeech-alignments).

    Args:
        path: the folder.

    Raises InputError for a folder without such files, and for an utterance that is in two of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.source = str(self.path)
        files = sorted(p for p in self.path.rglob("*") if p.name.endswith((CTM, TEXTGRID, LIBRISPEECH)))
        if not files:
            raise InputError(f"{path} holds no alignments: name a folder of *{CTM}, *{TEXTGRID} or *{LIBRISPEECH} files")
        listed = "\n".join(f"{fingerprints.of_file(p)} {p.relative_to(self.path)}" for p in files)
        self._fingerprint = hashlib.sha256(listed.encode()).hexdigest()
        self._words: dict[str, list[TimedWord]] = {}
        self._grids: dict[str, Path] = {}
        self._chapters: dict[str, Path] = {}
        for file in files:
            if file.suffix == CTM:
                self._add(self._words, read_ctm(file), file)
            elif file.suffix == TEXTGRID:
                self._add(self._grids, {file.stem: file}, file)
            else:
                self._add(self._chapters, {file.name.removesuffix(LIBRISPEECH): file}, file)

    def _add(self, known: dict[str, Any], new: Mapping[str, Any], file: Path) -> None:
        twice = known.keys() & new.keys()
        if twice:
            raise InputError(f"{file}: '{min(twice)}' is in another file of {self.path} too: keep one")
        known.update(new)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "ElsewhereAligner":
        """Three words of one utterance ``utt``, as a TextGrid in ``folder`` (default: one that goes with the process)."""
        from reallm.tokenizers.character import process_folder

        path = (folder or process_folder()) / "tiny_alignments"
        path.mkdir(exist_ok=True)
        (path / f"utt{TEXTGRID}").write_text(TINY, encoding="utf-8")
        return cls(path)

    def backend_version(self) -> tuple[str, str]:
        """What is stored beside the alignments: the kinds of files, and the begin of a sha256 of their names and contents."""
        kinds = {"ctm": self._words, "textgrid": self._grids, "librispeech": self._chapters}
        return "+".join(kind for kind, found in kinds.items() if found), self._fingerprint[:16]

    def words_of(self, utterance: str) -> list[TimedWord] | None:
        """The words of an utterance. Raises InputError for a file that cannot be read."""
        if utterance in self._words:
            return self._words[utterance]
        if utterance in self._grids:
            return read_textgrid(self._grids[utterance])
        chapter = self._chapters.get(utterance.rpartition("-")[0])
        return None if chapter is None else read_librispeech(chapter).get(utterance)


def read_textgrid(path: Path) -> list[TimedWord]:
    """The tier of words of a TextGrid, silences left out. Raises InputError for another file, and one without such a tier."""
    from praatio.textgrid import openTextgrid
    from praatio.utilities.constants import Interval

    try:
        grid = openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="silence")
    except Exception as error:  # the library raises whatever parsing runs into
        raise InputError(f"{path} is no TextGrid ({(str(error).splitlines() or [type(error).__name__])[0]}): make it again") from None
    names = [name for name in grid.tierNames if name.casefold() in ("word", "words") or name.casefold().endswith(" words")]
    if len(names) != 1:
        raise InputError(f"{path} has the tiers {', '.join(grid.tierNames) or 'none'}: one called 'words' is needed")
    entries = [entry for entry in grid.getTier(names[0]).entries if isinstance(entry, Interval)]
    return [(float(e.start), float(e.end), e.label.strip(), 1.0) for e in entries if e.label.strip().casefold() not in SILENCES]


@lru_cache(maxsize=CHAPTERS)
def read_librispeech(path: Path) -> dict[str, list[TimedWord]]:
    """The words of each utterance of a chapter, silences left out. Raises InputError for a file of another form."""
    from lhotse.recipes.librispeech import parse_alignments

    try:
        found = parse_alignments(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a file of the LibriSpeech alignments ({error}): get it again") from None
    return {name: [(i.start, i.start + i.duration, i.symbol, 1.0) for i in items if i.symbol] for name, items in found.items()}
