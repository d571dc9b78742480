"""Synthetic corpora are spoken in shards, by one who is at hand or by many, to the same bytes; they are there whole or not at all."""

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from reallm.data.corpora.spoken_text import RATE, Saying, say
from reallm.data.files import atomic_write, move_folder
from reallm.data.synthesis import Synthesizer
from reallm.jobs import Tick, Workers, in_shards

SHARD = 16  # utterances
Planned = tuple[str, Saying]  # the file of an utterance, below its corpus, and how it is said


@dataclass(frozen=True)
class Spoken:
    """An utterance that was written."""

    path: str
    saying: Saying
    seconds: float


@dataclass(frozen=True)
class Speech:
    """Writes utterances below ``folder``, for :func:`reallm.jobs.in_shards`: planned utterances → seconds of each."""

    folder: Path

    def __call__(self, planned: Sequence[Planned], tick: Tick) -> list[float]:
        # Whoever speaks a shard has said nothing before it.
        Synthesizer().restart()
        return [self._write(self.folder / path, saying, tick) for path, saying in planned]

    def _write(self, file: Path, saying: Saying, tick: Tick) -> float:
        audio = say(saying)
        packed = io.BytesIO()  # libsndfile does not pass on that a disk is full
        soundfile.write(packed, audio, RATE, format="FLAC", subtype="PCM_16")
        # A cluster may have two workers at one shard, when it believes the first to be dead: whoever is last writes the same.
        with atomic_write(file, "wb") as sink:
            sink.write(packed.getvalue())
        tick(1)
        return len(audio) / RATE


@dataclass(frozen=True)
class Speakers:
    """Who speaks a corpus below ``folder``; the lengths of what they have spoken are kept in ``parts``."""

    folder: Path
    parts: Path
    workers: Workers
    tick: Tick

    def speak(self, name: str, plan: Iterator[Planned], utterances: int | None, seconds: float) -> list[Spoken]:
        """The first ``utterances`` of a ``plan``, or (None) as many as ``seconds`` take. ``name``: of this part of the corpus."""
        found: list[Spoken] = []

        def enough(count: int, so_far: float) -> bool:
            return so_far >= seconds if utterances is None else count == utterances

        done = expected = 0.0
        number = 0
        while not enough(len(found), done):
            several: list[Planned] = []
            ahead, slower = 0.0, done / expected if expected else 1.0
            while not several or not enough(len(found) + len(several), done + ahead * slower):
                several.append(next(plan))
                ahead += several[-1][1].expected
            shards = in_shards(
                Speech(self.folder), several, SHARD, self.parts / f"{name}-{number}", {}, self.workers, self.tick, self._is_there
            )
            lengths = [length for shard in shards for length in shard]
            for (path, saying), length in zip(several, lengths, strict=True):
                if enough(len(found), done):
                    self._remove(path)
                else:
                    found.append(Spoken(path, saying, length))
                    done += length
            expected, number = expected + ahead, number + 1
        return found

    def _is_there(self, planned: Planned) -> bool:
        return (self.folder / planned[0]).is_file()

    def _remove(self, path: str) -> None:
        """One too many, and folders that held nothing else."""
        file = self.folder / path
        file.unlink(missing_ok=True)
        for folder in file.parents:
            if folder == self.folder or not folder.exists() or any(folder.iterdir()):
                return
            folder.rmdir()


@contextmanager
def whole_corpus(root: Path, marker: str, made: dict[str, Any], workers: Workers, tick: Tick) -> Iterator[Speakers]:
    """Speakers of a corpus that will be at ``root``, with a file ``marker`` that says what it was ``made`` of.

    What was spoken when this was stopped lies beside ``root`` until the same corpus is asked for again, which goes on from there. What
    else is written into their folder is written by :func:`reallm.data.files.atomic_write`, so that a rename makes a whole corpus of it.
    """
    root = root.resolve()
    parts = root.with_name(f".{root.name}.parts")
    stamp, folder = parts / marker, parts / root.name
    text = json.dumps(made, indent=1) + "\n"
    if parts.exists() and not (stamp.is_file() and stamp.read_text(encoding="utf-8") == text):
        shutil.rmtree(parts)
    with atomic_write(stamp) as file:
        file.write(text)
    folder.mkdir(exist_ok=True)
    try:
        yield Speakers(folder, parts, workers, tick)
    except BaseException:
        if not any(parts.glob("*/*.json.gz")):
            shutil.rmtree(parts)
        raise
    for stray in folder.rglob("*.tmp"):
        stray.unlink()
    with atomic_write(folder / marker) as file:
        file.write(text)
    move_folder(folder, root)
    shutil.rmtree(parts)
