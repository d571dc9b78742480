"""Word errors, their groups, and the statistics over them."""

import jiwer
import numpy as np
import pytest

from reallm.metrics.statistics import area_under_roc, bootstrap_wer, summary
from reallm.metrics.word_errors import ErrorCounts, align_words, errors_by_group


@pytest.mark.parametrize("seed", range(60))
def test_counts_are_jiwers_and_every_word_has_its_place(seed: int) -> None:
    random = np.random.default_rng(seed)
    ref, hyp = (random.choice(list("abcd"), random.integers(0, 9)).tolist() for _ in range(2))
    pairs = align_words(ref, hyp)
    assert [p.ref for p in pairs if p.ref is not None] == list(range(len(ref)))
    assert [p.hyp for p in pairs if p.hyp is not None] == list(range(len(hyp)))
    assert all(p.correct == (p.ref is not None and p.hyp is not None and ref[p.ref] == hyp[p.hyp]) for p in pairs)
    counts = ErrorCounts()
    counts.add(pairs)
    assert counts.words == len(ref)
    if ref:
        expected = jiwer.process_words(" ".join(ref), " ".join(hyp))
        assert (counts.insertions, counts.deletions, counts.substitutions) == (
            expected.insertions,
            expected.deletions,
            expected.substitutions,
        )
        assert counts.wer == pytest.approx(100 * expected.wer)
    groups = errors_by_group(pairs, [f"g{n % 2}" for n in range(len(ref))], "none")
    assert sum(errors for errors, _ in groups.values()) == counts.errors
    assert sum(words for _, words in groups.values()) == counts.words


def test_an_insertion_belongs_to_the_word_before_it() -> None:
    pairs = align_words(["a", "b"], ["x", "a", "y", "b"])
    assert errors_by_group(pairs, ["A", "B"], "none") == {"A": (2, 1), "B": (0, 1)}
    assert errors_by_group(align_words([], ["x"]), [], "none") == {"none": (1, 0)}


def test_bootstrap_interval() -> None:
    random = np.random.default_rng(0)
    words = [5] * 400
    errors = random.binomial(5, 0.1, 400).tolist()
    interval = bootstrap_wer(errors, words, seed=1)
    assert interval is not None
    rate = 100 * sum(errors) / sum(words)
    spread = 196 * np.sqrt(0.1 * 0.9 / 2000)
    assert interval[0] == pytest.approx(rate - spread, abs=0.3)
    assert interval[1] == pytest.approx(rate + spread, abs=0.3)
    assert interval == bootstrap_wer(errors, words, seed=1)
    # Errors that come together in few groups are known less well than the same number spread out.
    together = bootstrap_wer([5] * 40 + [0] * 360, words, seed=1)
    apart = bootstrap_wer([1] * 200 + [0] * 200, words, seed=1)
    assert together is not None and apart is not None
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    assert bootstrap_wer([0, 0], [3, 4]) == (0, 0)
    assert bootstrap_wer([1], [0]) is None


@pytest.mark.parametrize("seed", range(40))
def test_area_under_roc_is_the_share_of_ordered_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = random.integers(1, 30)
    items = list(zip(random.integers(0, 6, count).tolist(), (random.random(count) < random.random()).tolist(), strict=True))
    right = [score for score, correct in items if correct]
    wrong = [score for score, correct in items if not correct]
    area = area_under_roc([score for score, _ in items], [correct for _, correct in items])
    if right and wrong:
        assert area == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in right for b in wrong]), abs=1e-4)
    else:
        assert area is None


def test_summary() -> None:
    assert summary([]) is None
    assert summary(list(range(101))) == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
