"""What counts as the same word."""

import pytest

from reallm.errors import InputError
from reallm.metrics.normalize import librispeech, normalized
from reallm.metrics.references import Reference
from reallm.metrics.score import pair_up, score
from reallm.types import ScoredText
from tests.dummies.hypotheses import recognized, reference


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Don’t", ["DON'T"]),
        ("'tis,", ["'TIS"]),
        ("well-known", ["WELL", "KNOWN"]),
        ("(Mr.)", ["MR"]),
        ("—", []),
        ("'", []),
        ("...", []),
        ("naïve", ["NAÏVE"]),
        ("1,000", ["1000"]),
    ],
)
def test_librispeech(written: str, compared: list[str]) -> None:
    assert librispeech(written) == compared
    assert [word for part in compared for word in librispeech(part)] == compared


def test_both_sides_are_normalized_and_keep_their_times() -> None:
    hyp = recognized("u", ("one,", 0.6, 0.9, 0.9), ("-", 0.7, 1.0, 0.9), ("Two-three.", 2.6, 3.0, 0.8))
    hyp.n_best = [ScoredText("one, - Two-three.", -1.0)]
    ref = reference("u", "One two three!")
    assert score(pair_up([hyp], {"u": ref}))["wer"] == 100
    hyps, refs = normalized("librispeech", [hyp], {"u": ref})
    results = score(pair_up(hyps, refs))
    assert results["errors"] == 0 and results["words"] == 3 and hyps[0].text == "ONE TWO THREE"
    assert results["oracle_wer"] == 0
    assert results["emission_delay_ms"]["mean"] == pytest.approx((300 + 1400 + 400) / 3, abs=0.1)
    assert refs["u"].recordings == ["rec-One", "rec-two", "rec-three!"]


def test_none_changes_nothing() -> None:
    hyp, ref = recognized("u", ("One,", 0.6, 0.9, 0.9)), Reference("u", ["One"], [], 1.0, recordings=["u"])
    hyps, refs = normalized("none", [hyp], {"u": ref})
    assert hyps == [hyp] and refs == {"u": ref}


def test_an_unknown_one() -> None:
    with pytest.raises(InputError, match=r"unknown normalization 'librispech' \(did you mean 'librispeech'\?\)"):
        normalized("librispech", [], {})
