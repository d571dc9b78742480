"""``results.json``: the numbers of one decoding, and where they came from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from reallm.data.files import atomic_write
from reallm.metrics.hypotheses import Recognized
from reallm.metrics.normalize import normalized
from reallm.metrics.provenance import corpus_of, git_revision, split_of
from reallm.metrics.references import references
from reallm.metrics.score import pair_up, score

DECODING = "decode.json"  # beside hyps.jsonl: what decoding knows of the system and itself, and a key of all that it depends on
UNKNOWN = {"system": None, "parameters": None, "rtf": None, "alignment_backend": None, "seed": None}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def decoding_facts(folder: Path) -> dict[str, Any]:
    """What ``reallm decode`` wrote into ``folder`` about the system and itself; {} where it wrote nothing."""
    file = folder / DECODING
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: value for name, value in facts.items() if name != "key"}


def finished(folder: Path, key: str, scored: bool) -> bool:
    """Whether a decoding with this key lies in ``folder``, all of it. ``scored``: there are references, so there are results."""
    if not all((folder / name).is_file() for name in (DECODING, "hyps.jsonl", *(["results.json"] if scored else []))):
        return False
    try:
        return bool(json.loads((folder / DECODING).read_text(encoding="utf-8")).get("key") == key)
    except ValueError:
        return False


def make_results(
    recognized: Sequence[Recognized], cuts: Sequence[Cut], manifest: Path, facts: Mapping[str, Any], normalization: str = "none"
) -> dict[str, Any]:
    """Score ``recognized`` against ``cuts``, which come from ``manifest``.

    Args:
        normalization: of the words on both sides (reallm/metrics/normalize.py).
        facts: what decoding knows of the system and itself; those of ``results.json`` that it does not know are written as None. Where its
            ``times_known`` is False, words have no errors of time: their times are no measurement.

    Raises InputError as ``normalized``, ``pair_up`` and ``score``.
    """
    known = {**UNKNOWN, **facts, "manifest": str(Path(manifest).resolve()), "normalization": normalization}
    head = {
        "system": known.pop("system"),
        "corpus": corpus_of(manifest),
        "split": split_of(manifest),
        "parameters": known.pop("parameters"),
    }
    scored = pair_up(*normalized(normalization, recognized, references(cuts)))
    measured = score(scored)
    if known.get("times_known") is False:
        measured |= {"word_start_error_ms": None, "word_end_error_ms": None}
    return {**head, **measured, **known, "git": git_revision()}


def one_line(results: Mapping[str, Any]) -> str:
    """The gist of a result."""
    low, high = results["wer_ci95"]
    line = f"{results['split']}: WER {results['wer']:.2f} % (95 %: {low:.2f} to {high:.2f})"
    line += f", {results['errors']} errors in {results['words']} words"
    line += f" ({results['insertions']} ins, {results['deletions']} del, {results['substitutions']} sub)"
    if "oracle_wer" in results:
        line += f", oracle {results['oracle_wer']:.2f} %"
    if results["emission_delay_ms"]:
        line += f", emission delay {results['emission_delay_ms']['mean']:.0f} ms"
    if results["rtf"] is not None:
        line += f", real-time factor {results['rtf']:.3f}"
    return f"{line} [{results['corpus']['kind']}]"
