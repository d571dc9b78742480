"""``EXP/report/``: an experiment as one page with pictures."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import Cut
from matplotlib.figure import Figure

from reallm.data.cuts import load_audio, read_cuts
from reallm.data.files import atomic_folder
from reallm.errors import InputError, nearest
from reallm.metrics import plots
from reallm.metrics.hypotheses import read_hypotheses
from reallm.metrics.normalize import normalized
from reallm.metrics.references import references
from reallm.metrics.score import ScoredUtterance, pair_up
from reallm.metrics.statistics import bootstrap_wer
from reallm.metrics.word_errors import ErrorCounts, errors_by_group
from reallm.types import Word

MOST_ROWS = 25  # of a table

Teacher = Callable[[Cut], list[Word]]


@dataclass
class Decoding:
    """One folder that ``reallm decode`` wrote."""

    name: str
    results: dict[str, Any]
    scored: list[ScoredUtterance]
    cuts: dict[str, Cut]


def read_decoding(folder: Path, name: str) -> Decoding:
    """Raises InputError where it is not whole, or its manifest is gone."""
    file = folder / "results.json"
    if not file.is_file():
        raise InputError(f"{folder} has hypotheses but no results.json: run reallm score")
    results = json.loads(file.read_text(encoding="utf-8"))
    recognized = read_hypotheses(folder / "hyps.jsonl")
    decoded = {utterance.id for utterance in recognized}
    cuts = [cut for cut in read_cuts(Path(results["manifest"])) if cut.id in decoded]
    scored = pair_up(*normalized(results.get("normalization", "none"), recognized, references(cuts)))
    return Decoding(name, results, scored, {cut.id: cut for cut in cuts})


def find_decodings(exp: Path) -> list[Decoding]:
    """All decodings below an experiment folder, by name, ``test`` first."""
    folders = sorted({file.parent for file in exp.rglob("hyps.jsonl")}, key=lambda folder: (folder.name != "test", str(folder)))
    return [read_decoding(folder, str(folder.relative_to(exp))) for folder in folders]


def choose_utterance(decoding: Decoding, wanted: str | None) -> ScoredUtterance:
    """The utterance named, else one of middle length that was recognized without error, if there is one.

    Raises InputError for a name that was not decoded.
    """
    by_id = {utterance.reference.id: utterance for utterance in decoding.scored}
    if wanted is not None:
        if wanted not in by_id:
            raise InputError(f"utterance '{wanted}' was not decoded{nearest(wanted, by_id)}: name one of {decoding.name}/hyps.jsonl")
        return by_id[wanted]
    right = [u for u in decoding.scored if all(pair.correct for pair in u.pairs) and u.pairs] or decoding.scored
    middle = float(np.median([len(u.reference.words) for u in right]))
    return min(right, key=lambda u: (abs(len(u.reference.words) - middle), u.reference.id))


def group_errors(scored: Sequence[ScoredUtterance], key: Callable[[ScoredUtterance], str]) -> dict[str, tuple[float, float, float, int]]:
    """WER, its 95 % interval by utterances and the number of words, of each group, sorted by its name (numbers by size)."""
    members: dict[str, list[ScoredUtterance]] = {}
    for utterance in scored:
        members.setdefault(key(utterance), []).append(utterance)
    found = {}
    for name in sorted(members, key=lambda n: (len(n) if n.isdigit() else 0, n)):
        counts = [errors_by_group(u.pairs, [""] * len(u.reference.words), "").get("", (0, 0)) for u in members[name]]
        errors, words = [e for e, _ in counts], [w for _, w in counts]
        interval = bootstrap_wer(errors, words)
        if interval is not None:
            found[name] = (100 * sum(errors) / sum(words), *interval, sum(words))
    return found


def confusions(scored: Sequence[ScoredUtterance]) -> list[tuple[int, str, str]]:
    """(count, reference word, recognized word), most frequent first; "" where there is none."""
    counts: Counter[tuple[str, str]] = Counter()
    for u in scored:
        for pair in u.pairs:
            if not pair.correct:
                ref = "" if pair.ref is None else u.reference.words[pair.ref]
                counts[ref, "" if pair.hyp is None else u.recognized.words[pair.hyp].word] += 1
    return sorted(((count, *words) for words, count in counts.items()), key=lambda row: (-row[0], row[1:]))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def _results_rows(decodings: Sequence[Decoding]) -> str:
    def cell(value: Any, digits: int = 0) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    rows = []
    for d in decodings:
        r, delay = d.results, d.results["emission_delay_ms"] or {}
        rows.append(
            [
                d.name,
                r["system"],
                r["corpus"]["kind"],
                f"{r['wer']:.2f} ({r['wer_ci95'][0]:.2f} to {r['wer_ci95'][1]:.2f})",
                f"{r['errors']} / {r['words']}",
                f"{r['insertions']} / {r['deletions']} / {r['substitutions']}",
                " / ".join(cell(delay.get(name)) for name in ("mean", "p50", "p90", "p99")),
                cell(r.get("rtf"), 3),
            ]
        )
    head = ["decoding", "system", "corpus", "WER, % (95 %)", "errors / words", "ins / del / sub", "delay mean / p50 / p90 / p99, ms", "RTF"]
    return _table(head, rows)


class _Page:
    """Text and pictures, collected in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[str] = []

    def add(self, *parts: str) -> None:
        self.parts += parts

    def picture(self, name: str, figure: Figure, text: str) -> None:
        figure.savefig(self.folder / name)
        self.add(f"![{text}]({name})")


def write_report(
    exp: Path, out: Path, journal: Sequence[Mapping[str, Any]], teacher: Teacher | None = None, wanted: str | None = None
) -> list[Path]:
    """Write ``report.md`` and its pictures into the folder ``out``, whole or not at all; a report that was there is replaced.

    Args:
        exp: the experiment; every folder below it with hyps.jsonl and results.json is a decoding.
        journal: the lines of its training journal.
        teacher: the teacher's tokens of a cut, with their times as words; InputError for a text that it does not know is noted on the page.
        wanted: the utterance to draw, of the first decoding.

    Raises InputError when there is nothing to report, and for a decoding that is not whole.
    """
    decodings = find_decodings(exp)
    if not decodings and not journal:
        raise InputError(f"{exp} has neither a training journal nor decodings: train or decode first")
    if out.exists() and not (out / "report.md").is_file() and any(out.iterdir()):
        raise InputError(f"{out} is there and is no report: choose another folder")
    with atomic_folder(out, replace=True) as folder:
        page = _Page(folder)
        page.add(f"# {exp.resolve().name}")
        if decodings:
            page.add("## Results", _results_rows(decodings))
        if journal:
            page.add("## Training")
            page.picture("training.png", plots.training_curves(journal), "Training loss, validation error and learning rate")
        for number, decoding in enumerate(decodings):
            _add_decoding(page, decoding, teacher, wanted if number == 0 else None)
        (folder / "report.md").write_text("\n\n".join(part.rstrip("\n") for part in page.parts) + "\n", encoding="utf-8")
    return sorted(out.iterdir())


def _aligned(cut: Cut, teacher: Teacher | None) -> tuple[list[Word], str]:
    """The teacher's tokens of a cut; where there are none, why: a report of hours of decoding has its other pictures all the same."""
    if teacher is None:
        return [], "none was named (`--teacher`)"
    try:
        return teacher(cut), "it found no path through this utterance"
    except InputError as error:
        return [], str(error)


def _add_decoding(page: _Page, decoding: Decoding, teacher: Teacher | None, wanted: str | None) -> None:
    name, scored = decoding.name, decoding.scored
    prefix = name.replace("/", "_")
    kind = decoding.results["corpus"]["kind"]
    page.add(f"## Decoding {name} ({kind})")
    chosen = choose_utterance(decoding, wanted)
    cut = decoding.cuts[chosen.reference.id]
    tokens, missing = _aligned(cut, teacher)
    rate = cut.sampling_rate
    figure = plots.utterance(load_audio(cut), rate, chosen.reference.spoken, tokens, chosen.recognized.words, chosen.reference.id)
    page.picture(f"{prefix}_utterance.png", figure, "Spectrogram, true words, teacher's alignment, and words at their emission")
    notes = ["Dashed: the seconds of audio that were accepted when the word's last token showed."]
    if not tokens:
        notes.append(f"The teacher's alignment is not drawn: {missing}.")
    page.add(" ".join(notes))
    delays = [delay for utterance in scored for delay in utterance.delays_ms()]
    if delays:
        page.picture(
            f"{prefix}_delay.png", plots.delay_histogram(delays, f"Emission delay of {len(delays)} correct words"), "Emission delay"
        )
    wer = decoding.results["wer"]
    lengths = group_errors(scored, lambda u: str(len(u.reference.words)))
    page.picture(
        f"{prefix}_length.png", plots.error_bars(lengths, wer, "Errors by string length", "words of the string"), "WER by string length"
    )
    speakers = group_errors(scored, lambda u: u.reference.speaker or "unknown")
    page.picture(f"{prefix}_speaker.png", plots.error_bars(speakers, wer, "Errors by speaker", "speaker"), "WER by speaker")
    _add_errors(page, scored)


def _add_errors(page: _Page, scored: Sequence[ScoredUtterance]) -> None:
    counts = ErrorCounts()
    for utterance in scored:
        counts.add(utterance.pairs)
    page.add("### Errors")
    if not counts.errors:
        page.add(f"None in {counts.words} words.")
        return
    found = confusions(scored)
    more = f"\n\nand {len(found) - MOST_ROWS} more." if len(found) > MOST_ROWS else ""
    page.add(
        _table(["count", "said", "recognized"], [(n, ref or "(nothing)", hyp or "(nothing)") for n, ref, hyp in found[:MOST_ROWS]]) + more
    )
    wrong = [u for u in scored if not all(pair.correct for pair in u.pairs)]
    wrong.sort(key=lambda u: (-sum(not pair.correct for pair in u.pairs), u.reference.id))
    rows = [(u.reference.id, u.reference.speaker, " ".join(u.reference.words), u.recognized.text or "(nothing)") for u in wrong]
    page.add(f"{len(wrong)} of {len(scored)} utterances have errors; the worst:")
    page.add(_table(["utterance", "speaker", "said", "recognized"], rows[:MOST_ROWS]))
