"""Two systems on the same utterances, and their error rates at the same delay."""

from pathlib import Path

import pytest

from reallm.data.alignments import with_words
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.metrics.hypotheses import Recognized, read_hypotheses, write_hypotheses
from reallm.metrics.paired import compare, group_errors, mean_errors
from reallm.metrics.results import make_results
from reallm.metrics.statistics import bootstrap_wer, paired_bootstrap
from reallm.metrics.tradeoff import Point, frontier, wer_at
from reallm.types import Word
from tests.dummies.data import silent_cut
from tests.dummies.hypotheses import write_decoding


def write_strings(folder: Path, strings: dict[str, list[str]]) -> Path:
    """Strings of words, each of which is the recording rec-WORD of half a second, one a second."""
    cuts = []
    for name, said in strings.items():
        string = silent_cut(folder, name, 5.0, " ".join(said))
        for number, word in enumerate(said):
            string = string.mix(silent_cut(folder, f"rec-{word}", 0.5), offset_other_by=float(number))
        cuts.append(with_words(string.with_id(name), [Word(word, float(n), n + 0.5) for n, word in enumerate(said)]))
    write_cuts(cuts, folder / "strings.jsonl.gz")
    return folder / "strings.jsonl.gz"


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


def test_rounding_breaks_no_tie() -> None:
    """Thirds, and mixtures of equals, differ from one another in the last digit."""
    found = paired_bootstrap([1 / 3, 1 / 3, 1 / 3], [0.1 + 0.2 + 1 / 30, 1 / 3, 1 / 3 - 1e-16], [1, 1, 1])
    assert found == (0.0, 0.0, 0.0, 0.5) and "-0.0" not in str(found)
    assert "-0.0" not in str(paired_bootstrap([0.3], [0.1 + 0.2], [1]))


def test_errors_of_decodings_and_the_mean_of_seeds(tmp_path: Path) -> None:
    one = write_decoding(tmp_path / "1", {"a": ("ONE TWO", "one two"), "b": ("SIX", "NINE EIGHT")}, normalization="librispeech")
    two = write_decoding(tmp_path / "2", {"b": ("SIX", "six"), "a": ("ONE TWO", "")}, normalization="librispeech")
    first, second = group_errors(one), group_errors(two)
    assert first == {"a": (0, 2), "b": (2, 1)} and second == {"a": (2, 2), "b": (0, 1)}
    assert mean_errors([first, second]) == {"a": (1, 2), "b": (1, 1)}
    assert compare(first, second).difference == 0.0
    third = group_errors(write_decoding(tmp_path / "3", {"a": ("ONE TWO", "ONE TWO")}))
    with pytest.raises(InputError, match="the words of 1 utterances or recordings are not the same in both, such as 'b'"):
        compare(first, third)
    with pytest.raises(InputError, match="such as 'b'"):
        mean_errors([first, third])
    write_hypotheses(one / "hyps.jsonl", [Recognized("a", "one", [], 1.0)])
    with pytest.raises(InputError, match="utterance 'a' has no reference: decode again"):
        group_errors(one)


def test_recordings_are_drawn_where_the_interval_draws_them(tmp_path: Path) -> None:
    manifest = write_strings(tmp_path, {"a": ["one", "two", "one"], "b": ["two", "two"]})
    facts: dict[str, object] = {"wer_ci95_over": "recordings", "manifest": str(manifest)}
    texts = {"a": ("one two one", "one ten one nine"), "b": ("two two", "ten two")}
    decoded = write_decoding(tmp_path / "1", texts, **facts)
    assert group_errors(decoded) == {"rec-one": (1, 2), "rec-two": (2, 3)}, "the insertion is that of the word before it"
    assert group_errors(write_decoding(tmp_path / "2", texts)) == {"a": (2, 3), "b": (1, 2)}
    results = make_results(read_hypotheses(decoded / "hyps.jsonl"), list(read_cuts(manifest)), manifest, {})
    assert results["wer_ci95_over"] == "recordings"
    errors, words = zip(*group_errors(decoded).values(), strict=True)
    assert results["wer_ci95"] == bootstrap_wer(errors, words), "the same groups"
    write_strings(tmp_path, {"a": ["one", "two", "two"], "b": ["two", "two"]})
    with pytest.raises(InputError, match="is another than the one that was decoded, such as in 'a': decode again"):
        group_errors(decoded)
    manifest.unlink()
    with pytest.raises(InputError, match=r"draw recordings, which .*strings\.jsonl\.gz names, and that is gone"):
        group_errors(decoded)


def test_an_insertion_where_nothing_was_said_is_an_error_of_one_system(tmp_path: Path) -> None:
    one = group_errors(write_decoding(tmp_path / "1", {"a": ("", "one"), "b": ("two", "two")}))
    two = group_errors(write_decoding(tmp_path / "2", {"a": ("", ""), "b": ("two", "two")}))
    assert one == {"a": (1, 0), "b": (0, 1)} and two == {"a": (0, 0), "b": (0, 1)}
    assert compare(one, two).difference == 100.0


def test_error_rates_at_a_delay() -> None:
    points = [Point(400, 10), Point(200, 20), Point(300, 30), Point(800, 12)]
    assert frontier(points) == [(200, 20), (400, 10)]
    assert [wer_at(points, delay) for delay in (199, 200, 250, 400, 9999)] == [None, 20, 17.5, 10, 10]
    assert wer_at([], 100) is None
