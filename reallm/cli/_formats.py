"""Words with times, as other programs read them."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from reallm.errors import InputError

CUE_WORDS, CUE_SECONDS, CUE_GAP = 10, 6.0, 1.0  # the most of one subtitle; a longer silence begins a new one

TimedWords = Sequence[Mapping[str, Any]]


def recording_id(file: Path | str) -> str:
    """What CTM calls a file: its name without folder and suffix, with _ for spaces."""
    return "_".join(Path(file).stem.split()) or "audio"


def refuse_equal_ids(files: Sequence[Path]) -> None:
    """Raises InputError where two files have one :func:`recording_id`: their lines could not be told apart."""
    called: dict[str, Path] = {}
    for file in files:
        name = recording_id(file)
        if name in called:
            raise InputError(f"--ctm: {called[name]} and {file} are both called '{name}': call it once for each, or rename one")
        called[name] = file


def time_marked(file: str, words: TimedWords) -> str:
    """CTM lines: :func:`recording_id`, channel, start, duration, word, confidence."""
    return "".join(
        f"{recording_id(file)} 1 {w['start']:.3f} {w['end'] - w['start']:.3f} {w['word']} {w['confidence']:.3f}\n" for w in words
    )


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    return f"{milliseconds // 3600000:02}:{milliseconds // 60000 % 60:02}:{milliseconds // 1000 % 60:02},{milliseconds % 1000:03}"


def subtitles(words: TimedWords, ends: Container[int] = ()) -> str:
    """SubRip: numbered cues of a few words, none of which goes on after so many words as are in ``ends``."""
    cues: list[list[Mapping[str, Any]]] = []
    for number, word in enumerate(words):
        cue = cues[-1] if cues and number not in ends else []
        if cue and len(cue) < CUE_WORDS and word["start"] - cue[-1]["end"] < CUE_GAP and word["end"] - cue[0]["start"] <= CUE_SECONDS:
            cue.append(word)
        else:
            cues.append([word])
    return "".join(
        f"{number}\n{_clock(cue[0]['start'])} --> {_clock(cue[-1]['end'])}\n{' '.join(word['word'] for word in cue)}\n\n"
        for number, cue in enumerate(cues, start=1)
    )
