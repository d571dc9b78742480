"""From hypotheses and references to the numbers of ``results.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reallm.errors import InputError, nearest
from reallm.metrics.hypotheses import Recognized
from reallm.metrics.references import Reference
from reallm.metrics.statistics import area_under_roc, bootstrap_wer, summary
from reallm.metrics.word_errors import ErrorCounts, WordPair, align_words, errors_by_group


@dataclass
class ScoredUtterance:
    """A reference, its hypothesis and their alignment."""

    reference: Reference
    recognized: Recognized
    pairs: list[WordPair]

    @property
    def correct(self) -> list[WordPair]:
        """The pairs of equal words."""
        return [pair for pair in self.pairs if pair.correct]

    def delays_ms(self) -> list[float]:
        """Emission delay of each correct word: when its last token showed, minus its reference end."""
        return [delay for pair in self.correct if (delay := self._delay_ms(pair)) is not None]

    def final_delay_ms(self) -> float | None:
        """Emission delay of the last word, if that is correct."""
        last = len(self.reference.words) - 1
        return next((self._delay_ms(pair) for pair in self.correct if pair.ref == last), None)

    def time_errors_ms(self, edge: Literal["start", "end"]) -> list[float]:
        """Estimated minus reference start or end of each correct word."""
        if not self.reference.spoken:
            return []
        pairs = [(self.recognized.words[p.hyp], self.reference.spoken[p.ref]) for p in self.correct]  # type: ignore[index]
        return [1000 * (getattr(recognized, edge) - getattr(spoken, edge)) for recognized, spoken in pairs]

    def oracle_errors(self) -> int | None:
        """Word errors of that one of the n best texts which has the fewest; None where there are none."""
        texts = self.recognized.n_best or []
        return min((sum(not p.correct for p in align_words(self.reference.words, one.text.split())) for one in texts), default=None)

    def _delay_ms(self, pair: WordPair) -> float | None:
        assert pair.ref is not None and pair.hyp is not None
        emitted = self.recognized.words[pair.hyp].emitted_at
        if emitted is None or not self.reference.spoken:
            return None
        return 1000 * (emitted - self.reference.spoken[pair.ref].end)


def pair_up(recognized: Sequence[Recognized], references: Mapping[str, Reference]) -> list[ScoredUtterance]:
    """Every reference with its hypothesis.

    Raises InputError where an id is on one side only, or comes twice.
    """
    by_id = {r.id: r for r in recognized}
    if len(by_id) != len(recognized):
        raise InputError(f"{len(recognized) - len(by_id)} ids come more than once in the hypotheses: decode again")
    for here, there, what in ((by_id, references, "manifest"), (references, by_id, "hypotheses")):
        missing = [name for name in here if name not in there]
        if missing:
            hint = nearest(missing[0], there)
            raise InputError(f"{len(missing)} utterances are not in the {what}, such as '{missing[0]}'{hint}: score what was decoded")
    scored = []
    for name, ref in references.items():
        hyp = by_id[name]
        scored.append(ScoredUtterance(ref, hyp, align_words(ref.words, [word.word for word in hyp.words])))
    return scored


def score(scored: Sequence[ScoredUtterance], seed: int = 0) -> dict[str, Any]:
    """The measured part of ``results.json``.

    ``wer_ci95`` draws recordings where every word is known to come from one (a string composed of single recordings),
    else utterances; ``wer_ci95_over`` says which. Delays need reference times, and are None without. ``oracle_wer``, of each
    utterance's best one of the n best texts, is there where all utterances have those.
    """
    counts = ErrorCounts()
    grouped: dict[str, tuple[int, int]] = {}
    over_recordings = any(name != u.reference.id for u in scored for name in u.reference.recordings)
    for utterance in scored:
        counts.add(utterance.pairs)
        name = utterance.reference.id
        for group, (errors, words) in errors_by_group(utterance.pairs, utterance.reference.recordings, name).items():
            before = grouped.get(group, (0, 0))
            grouped[group] = (before[0] + errors, before[1] + words)
    if counts.wer is None:
        raise InputError("the references hold no words: nothing to score")
    hyp_words = [
        (utterance.recognized.words[p.hyp].confidence, p.correct) for utterance in scored for p in utterance.pairs if p.hyp is not None
    ]
    finals = [delay for utterance in scored if (delay := utterance.final_delay_ms()) is not None]
    oracle = [fewest for utterance in scored if (fewest := utterance.oracle_errors()) is not None]
    return {
        "wer": round(counts.wer, 3),
        **({"oracle_wer": round(100 * sum(oracle) / counts.words, 3)} if len(oracle) == len(scored) else {}),
        "wer_ci95": bootstrap_wer([e for e, _ in grouped.values()], [w for _, w in grouped.values()], seed),
        "wer_ci95_over": "recordings" if over_recordings else "utterances",
        "errors": counts.errors,
        "words": counts.words,
        "insertions": counts.insertions,
        "deletions": counts.deletions,
        "substitutions": counts.substitutions,
        "utterances": len(scored),
        "emission_delay_ms": summary([delay for utterance in scored for delay in utterance.delays_ms()]),
        "final_delay_ms": summary(finals),
        "word_start_error_ms": _time_error([error for utterance in scored for error in utterance.time_errors_ms("start")]),
        "word_end_error_ms": _time_error([error for utterance in scored for error in utterance.time_errors_ms("end")]),
        "confidence_auc": area_under_roc([c for c, _ in hyp_words], [right for _, right in hyp_words]),
        "response_cap_hits": sum(utterance.recognized.cap_hits for utterance in scored),
        "seconds_of_audio": round(sum(utterance.recognized.seconds for utterance in scored), 1),
    }


def _time_error(errors: Sequence[float]) -> dict[str, float] | None:
    """Signed mean and median, then the absolute error as it is and after taking off the median."""
    signed = summary(errors)
    absolute = summary([abs(e) for e in errors])
    if signed is None or absolute is None:
        return None
    middle = signed["p50"]
    centred = summary([abs(e - middle) for e in errors])
    assert centred is not None
    return {"mean": signed["mean"], "median": middle, "median_absolute": absolute["p50"], "median_absolute_centred": centred["p50"]}
