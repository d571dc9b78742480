"""Sentences spoken by espeak-ng, at random speed and pitch: what synthetic corpora are made of."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reallm import fingerprints
from reallm.data.corpora.text_lines import text_lines
from reallm.data.synthesis import Synthesizer
from reallm.errors import InputError

RATE = 16000
TEXTS = {"train": "train.txt", "dev": "dev.txt", "test": "test.txt"}
SPOKEN = "synthesized with espeak-ng"  # in place of a licence


@dataclass(frozen=True)
class Speaker:
    """A voice with a name of its own."""

    name: str
    voice: str


@dataclass(frozen=True)
class Manner:
    """How a sentence is said: each is drawn between two numbers. Those with the default None are not drawn.

    Args:
        words_per_minute, pitch, pitch_range: of espeak-ng; the upper number is excluded.
        level: peak of the samples.
        word_gap: silence between words in units of 10 ms at the usual speed, in a third of the sentences.
        faster: how much faster the samples are played, which raises pitch and formants as a shorter vocal tract does.
        silence: seconds before and after.
        snr_db: of white noise.
    """

    words_per_minute: tuple[int, int]
    pitch: tuple[int, int]
    pitch_range: tuple[int, int]
    level: tuple[float, float] = (0.2, 0.9)
    word_gap: tuple[int, int] | None = None
    faster: tuple[float, float] | None = None
    silence: tuple[float, float] | None = None
    snr_db: tuple[float, float] | None = None


def sentences(text: Path, name: str, words: tuple[int, int]) -> list[str]:
    """The sentences of ``text``/``name`` with so many words, at least and at most.

    Raises InputError where there is no such file, or no such sentence in it.
    """
    file = text / name
    if not file.is_file():
        raise InputError(f"no text {file}: give --text a folder with {', '.join(TEXTS.values())}, one upper-case sentence a line")
    found = [line.strip() for line in text_lines(file) if words[0] <= len(line.split()) <= words[1]]
    if not found:
        raise InputError(f"{file} holds no sentence of {words[0]} to {words[1]} words: give another text")
    return found


def made_of(text: Path, **options: Any) -> dict[str, Any]:
    """What a synthetic corpus depends on: the options, and the texts of the folder ``text``."""
    prints = {name: fingerprints.of_file(text / name) for name in TEXTS.values()}
    return {"speech": f"{SPOKEN}: not real speech", **options, **prints}


def refuse_another(root: Path, marker: str, wanted: dict[str, Any]) -> None:
    """Raises InputError unless the corpus ``root``, whose file ``marker`` says what it was made of, was made of what is ``wanted``."""
    try:
        made = json.loads((root / marker).read_text(encoding="utf-8"))
        different = [f"{key} {made.get(key)}, not {value}" for key, value in wanted.items() if made.get(key) != value]
    except (OSError, ValueError, AttributeError):
        different = ["what is not known"]
    if different:
        raise InputError(f"{root} was spoken with {'; '.join(different)}: name another --out, or remove {root}")


@dataclass(frozen=True)
class Saying:
    """How one sentence is said: what :class:`Manner` draws, and the seed of breath and noise."""

    speaker: Speaker
    text: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    word_gap: int
    faster: float
    silence: tuple[float, float]
    snr_db: float | None
    level: float
    seed: int

    @property
    def expected(self) -> float:
        """Seconds, roughly."""
        return 60 * len(self.text.split()) / self.words_per_minute / self.faster + sum(self.silence)


def sayings(texts: Sequence[str], speakers: Sequence[Speaker], manner: Manner, rng: np.random.Generator) -> Iterator[Saying]:
    """How sentences are said, for ever; they come again only when all were said. Each is drawn when it is asked for."""
    seeds = rng.spawn(1)[0]
    while True:
        for row in rng.permutation(len(texts)).tolist():
            speaker = speakers[int(rng.integers(len(speakers)))]
            ranges = (manner.words_per_minute, manner.pitch, manner.pitch_range)
            speed, pitch, pitch_range = (int(rng.integers(*between)) for between in ranges)
            gap = 0 if manner.word_gap is None or rng.random() >= 1 / 3 else int(rng.integers(*manner.word_gap))
            faster = 1.0 if manner.faster is None else float(rng.uniform(*manner.faster))
            before, after = (0.0, 0.0) if manner.silence is None else rng.uniform(*manner.silence, 2).tolist()
            snr_db = None if manner.snr_db is None else float(rng.uniform(*manner.snr_db))
            level, seed = float(rng.uniform(*manner.level)), int(seeds.integers(2**31))
            yield Saying(speaker, texts[row], speed, pitch, pitch_range, gap, faster, (before, after), snr_db, level, seed)


def say(saying: Saying) -> np.ndarray:
    """(S,) float32 at 16 kHz."""
    import soxr

    synthesizer = Synthesizer()
    synthesizer.seed(saying.seed)
    # In lower case: of a sentence in upper case, short words are spelt.
    audio = synthesizer.speak(
        saying.text.lower(), saying.speaker.voice, saying.words_per_minute, saying.pitch, saying.pitch_range, saying.word_gap
    )
    audio = soxr.resample(audio, synthesizer.sample_rate * saying.faster, RATE)
    audio = np.pad(audio, [round(RATE * seconds) for seconds in saying.silence])
    if saying.snr_db is not None:
        noise = np.random.default_rng(saying.seed).standard_normal(len(audio)).astype(np.float32)
        audio = audio + noise * np.float32(np.sqrt((audio**2).mean() * 10 ** (-saying.snr_db / 10)))
    return audio * np.float32(saying.level / np.abs(audio).max())
