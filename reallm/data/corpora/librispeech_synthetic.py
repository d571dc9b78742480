"""A corpus in LibriSpeech's exact folder layout, spoken by espeak-ng: for trying the recipe where the real one is not."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reallm.data.corpora.librispeech import EVALUATION, FOLDER, SYNTHETIC
from reallm.data.corpora.speaking import Planned, Spoken, whole_corpus
from reallm.data.corpora.spoken_text import TEXTS, Manner, Saying, Speaker, made_of, refuse_another, sayings, sentences
from reallm.data.files import atomic_write
from reallm.data.synthesis import voices
from reallm.jobs import ALONE, Tick, Workers

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
    workers: Workers = ALONE,
    tick: Tick = lambda count: None,
) -> Path:
    """Speak ``out``/LibriSpeech, which is there whole or not at all; one of equal options and text is left as it is. Returns that folder.

    Args:
        text: a folder with train.txt, dev.txt and test.txt: the sentences of a split come from its own file.
        train_hours: of train-clean-100, at least.
        eval_utterances: of each of dev-clean, dev-other, test-clean and test-other; in the ``other`` ones there is noise.
        train_voices, test_voices: speakers of training, and of each other part; no voice is in two parts.
        workers: who speaks: to the same bytes, with one version of espeak-ng.
        tick: is told how many utterances were just spoken.

    Raises InputError for more voices than espeak-ng has, where there is no text, and where ``out`` holds another corpus; and as
    :func:`reallm.jobs.in_shards`.
    """
    root = out / FOLDER
    texts = {split: sentences(text, name, WORDS) for split, name in TEXTS.items()}
    made = made_of(text, hours=train_hours, eval_utterances=eval_utterances, train_voices=train_voices, test_voices=test_voices, seed=seed)
    if root.is_dir():
        refuse_another(root, SYNTHETIC, made)
        return root
    with whole_corpus(root, SYNTHETIC, made, workers, tick) as they:
        listing = ["; id | part | voice"]
        for number, (part, speakers) in enumerate(speakers_of(train_voices, test_voices).items()):
            rng = np.random.default_rng([seed, number])
            said = sayings(texts[part.partition("-")[0]], speakers, OTHER if part.endswith("other") else CLEAN, rng)
            spoken = they.speak(part, _plan(part, said), None if part == TRAINING else eval_utterances, train_hours * 3600)
            _write_transcripts(they.folder, spoken)
            hours = sum(each.seconds for each in spoken) / 3600
            listing += [f"{s.name} | {part} | {s.voice}" for s in speakers] + [f"; {part}: {hours:.3f} hours"]
        with atomic_write(they.folder / "SPEAKERS.TXT") as file:
            file.write("\n".join(listing) + "\n")
    return root


def _plan(part: str, said: Iterable[Saying]) -> Iterator[Planned]:
    """Speaker by speaker and chapter by chapter."""
    count: Counter[str] = Counter()
    for saying in said:
        speaker = saying.speaker.name
        chapter, number = divmod(count[speaker], CHAPTER)
        count[speaker] += 1
        yield f"{part}/{speaker}/{100000 + chapter}/{speaker}-{100000 + chapter}-{number:04d}.flac", saying


def _write_transcripts(folder: Path, spoken: Sequence[Spoken]) -> None:
    lines: dict[Path, list[str]] = {}
    for each in spoken:
        chapter, _, _ = Path(each.path).stem.rpartition("-")
        lines.setdefault((folder / each.path).with_name(f"{chapter}.trans.txt"), []).append(f"{Path(each.path).stem} {each.saying.text}")
    for path, texts in lines.items():
        with atomic_write(path) as file:
            file.write("\n".join(texts) + "\n")
