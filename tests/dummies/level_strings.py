"""Lhotse cuts that a level system understands."""

from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from reallm.data.alignments import with_words
from reallm.types import Word
from tests.dummies.recognizer import say, text_of


def make_cut(folder: Path, number: int) -> Cut:
    """A string of 1 to 5 digits with the truth about its words."""
    digits = [int(d) for d in np.random.default_rng(number).integers(1, 7, 1 + number % 5)]
    audio = say(digits, seed=number, trailing=0.02)
    file = folder / f"{number}.wav"
    soundfile.write(file, audio, 8000)
    edges = np.flatnonzero(np.diff(np.abs(np.concatenate([[0], audio, [0]])) > 0.01)).reshape(-1, 2) / 8000
    words = [Word(word, float(start), float(end)) for word, (start, end) in zip(text_of(digits).split(), edges, strict=True)]
    name = f"string-{number:02}"
    supervision = SupervisionSegment(name, name, 0, len(audio) / 8000, text=text_of(digits), speaker=f"speaker-{number % 2}")
    recording = Recording.from_file(file, recording_id=name)
    return with_words(MonoCut(name, 0, recording.duration, 0, supervisions=[supervision], recording=recording), words)
