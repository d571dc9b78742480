"""What was said and what was recognized, easy to count by hand."""

import json
from pathlib import Path

from reallm.metrics.hypotheses import Recognized, write_hypotheses
from reallm.metrics.references import Reference
from reallm.types import Word


def reference(name: str, text: str, timed: bool = True) -> Reference:
    """One word a second, each of half a second."""
    words = text.split()
    spoken = [Word(word, n + 0.1, n + 0.6) for n, word in enumerate(words)] if timed else []
    return Reference(name, words, spoken, len(words) + 1.0, "anna", [f"rec-{word}" for word in words])


def recognized(name: str, *words: tuple[str, float, float, float], cap_hits: int = 0) -> Recognized:
    """Words as (word, end, emitted_at, confidence)."""
    found = [Word(word, max(0.0, end - 0.4), end, confidence, emitted) for word, end, emitted, confidence in words]
    return Recognized(name, " ".join(w.word for w in found), found, 3.0, -1.0, cap_hits)


def write_decoding(folder: Path, texts: dict[str, tuple[str, str]], **results: object) -> Path:
    """Texts: id → (said, recognized)."""
    folder.mkdir(parents=True)
    found = [Recognized(name, hyp, [Word(word, 0.0, 0.1) for word in hyp.split()], 1.0, ref=ref) for name, (ref, hyp) in texts.items()]
    write_hypotheses(folder / "hyps.jsonl", found)
    (folder / "results.json").write_text(json.dumps({"normalization": "none", **results}))
    return folder
