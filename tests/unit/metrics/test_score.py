"""results.json from hypotheses and references that are easy to count by hand."""

import json
import subprocess
from pathlib import Path

import pytest

from reallm.errors import InputError
from reallm.metrics.hypotheses import Recognized, read_hypotheses, write_hypotheses
from reallm.metrics.provenance import corpus_of, git_revision, split_of
from reallm.metrics.score import pair_up, score
from reallm.types import Hypothesis, ScoredText, Word
from tests.dummies.hypotheses import recognized, reference


def test_numbers() -> None:
    references = {r.id: r for r in (reference("u1", "one two three"), reference("u2", "four five"))}
    hyps = [
        recognized("u2", ("four", 0.6, 0.9, 0.9), ("nine", 1.6, 2.0, 0.3), ("six", 2.0, 2.2, 0.2), cap_hits=2),
        recognized("u1", ("one", 0.65, 1.0, 0.99), ("three", 2.5, 3.0, 0.95)),
    ]
    results = score(pair_up(hyps, references))
    assert {k: results[k] for k in ("wer", "errors", "words", "insertions", "deletions", "substitutions", "utterances")} == {
        "wer": 60.0,
        "errors": 3,
        "words": 5,
        "insertions": 1,
        "deletions": 1,
        "substitutions": 1,
        "utterances": 2,
    }
    # of "one", "three" and "four": 400, 400 and 300 ms
    assert results["emission_delay_ms"] == {"mean": 366.7, "p50": 400.0, "p90": 400.0, "p99": 400.0}
    assert results["final_delay_ms"]["mean"] == 400.0
    # recognized words last 100 ms less than the reference's
    assert results["word_start_error_ms"] == {"mean": 83.3, "median": 100.0, "median_absolute": 100.0, "median_absolute_centred": 50.0}
    assert results["word_end_error_ms"] == {"mean": -16.7, "median": 0.0, "median_absolute": 50.0, "median_absolute_centred": 50.0}
    assert results["confidence_auc"] == 1.0
    assert results["response_cap_hits"] == 2
    assert results["seconds_of_audio"] == 6.0
    assert results["wer_ci95_over"] == "recordings"
    assert results["wer_ci95"][0] < 60 < results["wer_ci95"][1]


def test_the_oracle_of_the_n_best_texts() -> None:
    references = {r.id: r for r in (reference("u1", "one two three"), reference("u2", "four five"))}
    hyps = [recognized("u1", ("one", 0.6, 0.9, 0.9)), recognized("u2", ("four", 0.6, 0.9, 0.9), ("five", 1.6, 1.9, 0.9))]
    assert "oracle_wer" not in score(pair_up(hyps, references))
    hyps[0].n_best = [ScoredText("one", -1.0), ScoredText("one two", -1.5), ScoredText("six one", -2.0)]
    hyps[1].n_best = [ScoredText("four five", -1.0), ScoredText("", -3.0)]
    results = score(pair_up(hyps, references))
    assert (results["wer"], results["oracle_wer"]) == (40.0, 20.0)


def test_without_reference_times_there_are_no_delays() -> None:
    results = score(pair_up([recognized("u", ("one", 0.5, 0.9, 0.9))], {"u": reference("u", "one", timed=False)}))
    assert results["wer"] == 0
    timed = ("emission_delay_ms", "final_delay_ms", "word_start_error_ms", "word_end_error_ms", "confidence_auc")
    assert [results[k] for k in timed] == [None] * 5


def test_what_was_decoded_and_what_is_scored_must_be_the_same() -> None:
    references = {"u1": reference("u1", "one")}
    with pytest.raises(InputError, match="1 utterances are not in the hypotheses, such as 'u1'"):
        pair_up([], references)
    with pytest.raises(InputError, match="not in the manifest, such as 'u2'"):
        pair_up([recognized("u1"), recognized("u2")], references)
    with pytest.raises(InputError, match="more than once"):
        pair_up([recognized("u1"), recognized("u1")], references)
    with pytest.raises(InputError, match="no words"):
        score(pair_up([recognized("u")], {"u": reference("u", "")}))


def test_hypotheses_round_trip(tmp_path: Path) -> None:
    word = Word("one", 0.125, 0.5, 0.75, 0.625)
    before = [Recognized.of("u1", Hypothesis("one", [1, 2], [word], -2.0, 1, True), 1.5, "one\u2028"), Recognized("u2", "", [], 0.0)]
    alternatives = Hypothesis("one", [1, 2], [word], -2.0, 1, True, [ScoredText("one", -2.5), ScoredText("nine", -3.0)])
    before += [Recognized.of(f"u{3 + n}", alternatives, 1.5, n_best=n) for n in (1, 2)]
    assert write_hypotheses(tmp_path / "hyps.jsonl", before) == 4
    assert read_hypotheses(tmp_path / "hyps.jsonl") == before
    assert [utterance.n_best and len(utterance.n_best) for utterance in before] == [None, None, 1, 2]
    assert '"n_best"' not in (tmp_path / "hyps.jsonl").read_text().splitlines()[0]
    with pytest.raises(InputError, match="no hypotheses"):
        read_hypotheses(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"id": "u"}\n')
    with pytest.raises(InputError, match="line 1 is no hypothesis"):
        read_hypotheses(tmp_path / "bad.jsonl")


def test_real_and_synthetic_are_said_plainly(tmp_path: Path) -> None:
    for real, kind in ((True, "real recordings"), (False, "SYNTHETIC speech")):
        (tmp_path / "corpus.json").write_text(json.dumps({"corpus": "fsdd", "real": real, "licence": "CC0"}))
        assert corpus_of(tmp_path / "test.jsonl.gz") == {"name": "fsdd", "kind": kind, "licence": "CC0"}
    (tmp_path / "corpus.json").unlink()
    assert corpus_of(tmp_path / "test.jsonl.gz")["kind"].startswith("unknown")
    assert split_of(tmp_path / "test_noisy.jsonl.gz") == "test_noisy"


def test_git_revision() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    assert (git_revision() or "").rstrip("+") == head
