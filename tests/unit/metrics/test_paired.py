"""Two systems on the same utterances, and their error rates at the same delay."""

from pathlib import Path

import pytest

from reallm.errors import InputError
from reallm.metrics.hypotheses import Recognized, write_hypotheses
from reallm.metrics.paired import compare, mean_errors, utterance_errors
from reallm.metrics.statistics import bootstrap_wer, paired_bootstrap
from reallm.metrics.tradeoff import Point, frontier, wer_at
from tests.dummies.hypotheses import write_decoding


def test_a_constant_difference_has_no_spread() -> None:
    found = paired_bootstrap([2, 4, 1, 3], [1, 3, 0, 2], [10, 10, 10, 10])
    assert found == (10.0, 10.0, 10.0, 0.0)
    assert paired_bootstrap([1, 3, 0, 2], [2, 4, 1, 3], [10, 10, 10, 10]) == (-10.0, -10.0, -10.0, 1.0)


def test_the_interval_is_that_of_the_difference_and_not_of_the_rates() -> None:
    errors = [n % 7 for n in range(200)]
    other = [e + (n % 2) for n, e in enumerate(errors)]
    words = [10] * 200
    found = paired_bootstrap(errors, other, words)
    assert found is not None and found.difference == -5.0 and -6.0 < found.low < -5.0 < found.high < -4.0 and found.better == 1.0
    low, high = bootstrap_wer(errors, words) or (0, 0)
    assert high - low > 2 * (found.high - found.low), "what both find hard cancels"


def test_equal_systems_are_as_good_as_each_other() -> None:
    assert paired_bootstrap([1, 0, 2], [1, 0, 2], [3, 3, 3]) == (0.0, 0.0, 0.0, 0.5)
    assert paired_bootstrap([], [], []) is None and paired_bootstrap([1], [0], [0]) is None
    with pytest.raises(ValueError, match="each group needs all three"):
        paired_bootstrap([1], [1, 2], [3, 4])


def test_errors_of_decodings_and_the_mean_of_seeds(tmp_path: Path) -> None:
    one = write_decoding(tmp_path / "1", {"a": ("ONE TWO", "one two"), "b": ("SIX", "NINE EIGHT")}, normalization="librispeech")
    two = write_decoding(tmp_path / "2", {"b": ("SIX", "six"), "a": ("ONE TWO", "")}, normalization="librispeech")
    first, second = utterance_errors(one), utterance_errors(two)
    assert first == {"a": (0, 2), "b": (2, 1)} and second == {"a": (2, 2), "b": (0, 1)}
    assert mean_errors([first, second]) == {"a": (1, 2), "b": (1, 1)}
    assert compare(first, second).difference == 0.0
    third = utterance_errors(write_decoding(tmp_path / "3", {"a": ("ONE TWO", "ONE TWO")}))
    with pytest.raises(InputError, match="1 utterances are not the same in both, such as 'b'"):
        compare(first, third)
    with pytest.raises(InputError, match="such as 'b'"):
        mean_errors([first, third])
    write_hypotheses(one / "hyps.jsonl", [Recognized("a", "one", [], 1.0)])
    with pytest.raises(InputError, match="utterance 'a' has no reference: decode again"):
        utterance_errors(one)


def test_error_rates_at_a_delay() -> None:
    points = [Point(400, 10), Point(200, 20), Point(300, 30), Point(800, 12)]
    assert frontier(points) == [(200, 20), (400, 10)]
    assert [wer_at(points, delay) for delay in (199, 200, 250, 400, 9999)] == [None, 20, 17.5, 10, 10]
    assert wer_at([], 100) is None
