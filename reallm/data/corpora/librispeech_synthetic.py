"""A corpus in LibriSpeech's exact folder layout, spoken by espeak-ng: for trying the recipe where the real one is not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from reallm import fingerprints
from reallm.data.corpora.librispeech import EVALUATION, FOLDER, SYNTHETIC
from reallm.data.corpora.text_lines import text_lines
from reallm.data.files import atomic_folder
from reallm.data.synthesis import Synthesizer, voices
from reallm.errors import InputError

RATE = 16000
TRAINING = "train-clean-100"
CHAPTER = 20  # utterances
WORDS = (3, 35)  # of a sentence that is spoken, at least and at most
OTHER_SNR_DB = (10.0, 20.0)  # of the noise in dev-other and test-other
TEXTS = {"train": "train.txt", "dev": "dev.txt", "test": "test.txt"}


@dataclass(frozen=True)
class Speaker:
    """A voice with a number, as LibriSpeech's speakers have."""

    number: int
    voice: str


def speakers_of(train_voices: int, test_voices: int) -> dict[str, list[Speaker]]:
    """The speakers of each part: none is in two. Raises InputError where there are not as many voices."""
    known = voices(train_voices + len(EVALUATION) * test_voices)
    parts: dict[str, list[Speaker]] = {TRAINING: [Speaker(1000 + n, voice) for n, voice in enumerate(known[:train_voices])]}
    for number, part in enumerate(EVALUATION):
        first = train_voices + number * test_voices
        parts[part] = [Speaker(1000 + first + n, voice) for n, voice in enumerate(known[first : first + test_voices])]
    return parts


def sentences(text: Path, name: str) -> list[str]:
    """The sentences of ``text``/``name`` that are neither short nor long. Raises InputError where there is no such file, or none in it."""
    file = text / name
    if not file.is_file():
        raise InputError(f"no text {file}: give --text a folder with {', '.join(TEXTS.values())}, one upper-case sentence a line")
    found = [line.strip() for line in text_lines(file) if WORDS[0] <= len(line.split()) <= WORDS[1]]
    if not found:
        raise InputError(f"{file} holds no sentence of {WORDS[0]} to {WORDS[1]} words: give another text")
    return found


def write_corpus(
    out: Path,
    text: Path,
    train_hours: float,
    eval_utterances: int = 50,
    train_voices: int = 40,
    test_voices: int = 4,
    seed: int = 1,
    tick: Callable[[float], None] = lambda seconds: None,
) -> Path:
    """Speak ``out``/LibriSpeech, which is there whole or not at all; one of equal options and text is left as it is. Returns that folder.

    Args:
        text: a folder with train.txt, dev.txt and test.txt: the sentences of a split come from its own file.
        train_hours: of train-clean-100, at least.
        eval_utterances: of each of dev-clean, dev-other, test-clean and test-other; in the ``other`` ones there is noise.
        train_voices, test_voices: speakers of training, and of each other part; no voice is in two parts.
        tick: is told the seconds that were just spoken.

    Raises InputError for more voices than espeak-ng has, where there is no text, and where ``out`` holds another corpus.
    """
    root = out / FOLDER
    texts = {split: sentences(text, name) for split, name in TEXTS.items()}
    made: dict[str, Any] = {
        "speech": "synthesized with espeak-ng: not real speech",
        "hours": train_hours,
        "eval_utterances": eval_utterances,
        "train_voices": train_voices,
        "test_voices": test_voices,
        "seed": seed,
        **{name: fingerprints.of_file(text / name) for name in TEXTS.values()},
    }
    if root.is_dir():
        refuse_another(root, made)
        return root
    with atomic_folder(root) as folder:
        listing = ["; id | part | voice"]
        for number, (part, speakers) in enumerate(speakers_of(train_voices, test_voices).items()):
            rng = np.random.default_rng([seed, number])
            spoken = _spoken(texts[part.partition("-")[0]], speakers, part.endswith("other"), rng)
            hours = _write_part(folder / part, spoken, None if part == TRAINING else eval_utterances, train_hours * 3600, tick)
            listing += [f"{s.number} | {part} | {s.voice}" for s in speakers] + [f"; {part}: {hours:.3f} hours"]
        (folder / "SPEAKERS.TXT").write_text("\n".join(listing) + "\n", encoding="utf-8")
        (folder / SYNTHETIC).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return root


def refuse_another(root: Path, wanted: dict[str, Any]) -> None:
    """Raises InputError unless the corpus ``root`` was made as it is ``wanted``."""
    try:
        made = json.loads((root / SYNTHETIC).read_text(encoding="utf-8"))
        different = [f"{key} {made.get(key)}, not {value}" for key, value in wanted.items() if made.get(key) != value]
    except (OSError, ValueError, AttributeError):
        different = ["what is not known"]
    if different:
        raise InputError(f"{root} was spoken with {'; '.join(different)}: name another --out, or remove {root}")


def _spoken(texts: list[str], speakers: list[Speaker], noisy: bool, rng: np.random.Generator) -> Iterator[tuple[Speaker, str, np.ndarray]]:
    """Speaker, sentence and audio (S,), for ever; sentences come again only when all were said."""
    import soxr

    synthesizer = Synthesizer()
    while True:
        for row in rng.permutation(len(texts)).tolist():
            speaker = speakers[int(rng.integers(len(speakers)))]
            speed, pitch, pitch_range = (int(v) for v in (rng.integers(140, 210), rng.integers(30, 70), rng.integers(30, 70)))
            # In lower case: of a sentence in upper case, short words are spelt.
            audio = synthesizer.speak(texts[row].lower(), speaker.voice, speed, pitch, pitch_range)
            audio = soxr.resample(audio, synthesizer.sample_rate, RATE)
            if noisy:
                noise = rng.standard_normal(len(audio)).astype(np.float32)
                snr_db = rng.uniform(*OTHER_SNR_DB)
                audio = audio + noise * np.float32(np.sqrt((audio**2).mean() * 10 ** (-snr_db / 10)))
            yield speaker, texts[row], audio * np.float32(rng.uniform(0.2, 0.9) / np.abs(audio).max())


def _write_part(
    folder: Path,
    spoken: Iterator[tuple[Speaker, str, np.ndarray]],
    utterances: int | None,
    seconds: float,
    tick: Callable[[float], None],
) -> float:
    """Write ``utterances``, or (None) as many as ``seconds`` take, speaker by speaker and chapter by chapter; returns hours."""
    lines: dict[Path, list[str]] = {}
    count: dict[int, int] = {}
    done, written = 0.0, 0
    for speaker, text, audio in spoken:
        if (utterances is None and done >= seconds) or written == utterances:
            break
        said = count.get(speaker.number, 0)
        count[speaker.number] = said + 1
        chapter = f"{speaker.number}-{100000 + said // CHAPTER}"
        place = folder.joinpath(*chapter.split("-"))
        place.mkdir(parents=True, exist_ok=True)
        name = f"{chapter}-{said % CHAPTER:04d}"
        soundfile.write(place / f"{name}.flac", audio, RATE, subtype="PCM_16")
        lines.setdefault(place / f"{chapter}.trans.txt", []).append(f"{name} {text}")
        done, written = done + len(audio) / RATE, written + 1
        tick(len(audio) / RATE)
    for file, texts in lines.items():
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return done / 3600
