"""A corpus in LibriSpeech's exact folder layout, spoken by espeak-ng: for trying the recipe where the real one is not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from reallm.data.corpora.librispeech import EVALUATION, FOLDER, SYNTHETIC
from reallm.data.corpora.spoken_text import RATE, TEXTS, Manner, Speaker, made_of, refuse_another, sentences, spoken
from reallm.data.files import atomic_folder
from reallm.data.synthesis import voices

TRAINING = "train-clean-100"
CHAPTER = 20  # utterances
WORDS = (3, 35)  # of a sentence that is spoken, at least and at most
CLEAN = Manner(words_per_minute=(140, 210), pitch=(30, 70), pitch_range=(30, 70))
OTHER = replace(CLEAN, snr_db=(10.0, 20.0))  # in dev-other and test-other


def speakers_of(train_voices: int, test_voices: int) -> dict[str, list[Speaker]]:
    """The speakers of each part: none is in two. Raises InputError where there are not as many voices."""
    known = voices(train_voices + len(EVALUATION) * test_voices)
    parts: dict[str, list[Speaker]] = {TRAINING: [Speaker(str(1000 + n), voice) for n, voice in enumerate(known[:train_voices])]}
    for number, part in enumerate(EVALUATION):
        first = train_voices + number * test_voices
        parts[part] = [Speaker(str(1000 + first + n), voice) for n, voice in enumerate(known[first : first + test_voices])]
    return parts


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
    texts = {split: sentences(text, name, WORDS) for split, name in TEXTS.items()}
    made = made_of(text, hours=train_hours, eval_utterances=eval_utterances, train_voices=train_voices, test_voices=test_voices, seed=seed)
    if root.is_dir():
        refuse_another(root, SYNTHETIC, made)
        return root
    with atomic_folder(root) as folder:
        listing = ["; id | part | voice"]
        for number, (part, speakers) in enumerate(speakers_of(train_voices, test_voices).items()):
            rng = np.random.default_rng([seed, number])
            said = spoken(texts[part.partition("-")[0]], speakers, OTHER if part.endswith("other") else CLEAN, rng)
            hours = _write_part(folder / part, said, None if part == TRAINING else eval_utterances, train_hours * 3600, tick)
            listing += [f"{s.name} | {part} | {s.voice}" for s in speakers] + [f"; {part}: {hours:.3f} hours"]
        (folder / "SPEAKERS.TXT").write_text("\n".join(listing) + "\n", encoding="utf-8")
        (folder / SYNTHETIC).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return root


def _write_part(
    folder: Path,
    said: Iterator[tuple[Speaker, str, np.ndarray]],
    utterances: int | None,
    seconds: float,
    tick: Callable[[float], None],
) -> float:
    """Write ``utterances``, or (None) as many as ``seconds`` take, speaker by speaker and chapter by chapter; returns hours."""
    lines: dict[Path, list[str]] = {}
    count: dict[str, int] = {}
    done, written = 0.0, 0
    for speaker, text, audio in said:
        if (utterances is None and done >= seconds) or written == utterances:
            break
        number = count.get(speaker.name, 0)
        count[speaker.name] = number + 1
        chapter = f"{speaker.name}-{100000 + number // CHAPTER}"
        place = folder.joinpath(*chapter.split("-"))
        place.mkdir(parents=True, exist_ok=True)
        name = f"{chapter}-{number % CHAPTER:04d}"
        soundfile.write(place / f"{name}.flac", audio, RATE, subtype="PCM_16")
        lines.setdefault(place / f"{chapter}.trans.txt", []).append(f"{name} {text}")
        done, written = done + len(audio) / RATE, written + 1
        tick(len(audio) / RATE)
    for file, texts in lines.items():
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return done / 3600
