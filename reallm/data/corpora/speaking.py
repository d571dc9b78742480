"""Synthetic corpora are spoken in shards, by one who is at hand or by many, to the same bytes; they are there whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from reallm.data.corpora.spoken_text import RATE, Saying, say
from reallm.data.files import atomic_folder, atomic_write
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
        file.parent.mkdir(parents=True, exist_ok=True)
        # A cluster may have two workers at one shard, when it believes the first to be dead.
        beside = file.with_suffix(f".{os.getpid()}.tmp")
        soundfile.write(beside, audio, RATE, format="FLAC", subtype="PCM_16")
        os.replace(beside, file)
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
            shards = in_shards(Speech(self.folder), several, SHARD, self.parts / f"{name}-{number}", {}, self.workers, self.tick)
            lengths = [length for shard in shards for length in shard]
            for (path, saying), length in zip(several, lengths, strict=True):
                if enough(len(found), done):
                    self._remove(path)
                else:
                    found.append(Spoken(path, saying, length))
                    done += length
            expected, number = expected + ahead, number + 1
        return found

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

    What was spoken when this was stopped lies beside ``root`` until the same corpus is asked for again, which goes on from there.
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
    shutil.copy(stamp, folder)
    with atomic_folder(root) as whole:
        os.replace(folder, whole)
    shutil.rmtree(parts)
