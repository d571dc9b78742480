"""What was recognized, as JSON lines: ``hyps.jsonl``."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.types import Hypothesis, ScoredText, Seconds, Word


@dataclass
class Recognized:
    """What was recognized of one utterance."""

    id: str
    text: str
    words: list[Word]
    seconds: Seconds  # of audio
    score: float = 0.0
    cap_hits: int = 0
    ref: str | None = None
    n_best: list[ScoredText] | None = None  # best first; not in the file where they were not asked for

    @classmethod
    def of(cls, name: str, hypothesis: Hypothesis, seconds: Seconds, ref: str | None = None, n_best: int = 0) -> "Recognized":
        """The utterance ``name``, of which ``hypothesis`` is the final result, with ``n_best`` of its texts."""
        texts = hypothesis.n_best[:n_best] if n_best else None
        return cls(name, hypothesis.text, hypothesis.words, seconds, hypothesis.score, hypothesis.cap_hits, ref, texts)


def word_to_json(word: Word) -> dict[str, Any]:
    """A word as ``reallm transcribe --json`` prints it: times in seconds with three digits after the point."""
    numbers = {"start": word.start, "end": word.end, "confidence": word.confidence, "emitted_at": word.emitted_at}
    return {"word": word.word, **{name: None if n is None else round(n, 3) for name, n in numbers.items()}}


def to_json(utterance: Recognized) -> dict[str, Any]:
    """A line of ``hyps.jsonl``."""
    line = {**dataclasses.asdict(utterance), "words": [word_to_json(word) for word in utterance.words]}
    if utterance.n_best is None:
        del line["n_best"]
    return line


def from_json(line: dict[str, Any]) -> Recognized:
    """What :func:`to_json` made a line of. Raises TypeError and KeyError for anything else."""
    rebuilt: dict[str, Any] = {"words": [Word(**word) for word in line["words"]]}
    if "n_best" in line:
        rebuilt["n_best"] = [ScoredText(**one) for one in line["n_best"]]
    return Recognized(**{**line, **rebuilt})


def write_hypotheses(path: Path, recognized: Iterable[Recognized]) -> int:
    """Write ``path`` whole or not at all; returns how many utterances."""
    count = 0
    with atomic_write(path) as file:
        for utterance in recognized:
            file.write(json.dumps(to_json(utterance), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_hypotheses(path: Path) -> list[Recognized]:
    """Raises InputError for a file that is missing or empty, or a line that is not what :func:`write_hypotheses` writes."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no hypotheses {path}: run reallm decode first")
    found = []
    with path.open(encoding="utf-8") as file:  # read_text().splitlines() also splits at characters that transcripts hold
        for number, line in enumerate(file, start=1):
            try:
                found.append(from_json(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"{path}, line {number} is no hypothesis ({error}): decode again") from None
    if not found:
        raise InputError(f"{path} holds no hypotheses: decode again")
    return found
