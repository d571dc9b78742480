"""The schedule of batches."""

import numpy as np
import pytest

from reallm.data.sampler import duration_of, schedule


@pytest.fixture
def durations() -> list[float]:
    return np.random.default_rng(0).uniform(0.5, 8.0, 300).round(4).tolist()


def test_everything_once_within_the_limit(durations: list[float]) -> None:
    batches = schedule(durations, 0, 1, 30.0, 6)
    assert sorted(i for b in batches for i in b) == list(range(300))
    assert all(sum(durations[i] for i in b) <= 30.0 for b in batches)
    assert np.mean([sum(durations[i] for i in b) for b in batches]) > 18


def test_like_lengths_together(durations: list[float]) -> None:
    def padding(buckets: int) -> float:
        batches = schedule(durations, 0, 1, 30.0, buckets)
        padded = sum(len(b) * max(durations[i] for i in b) for b in batches)
        return padded / sum(durations)

    assert padding(8) < 1.15 < 1.25 < padding(2)


def test_function_of_seed_and_epoch(durations: list[float]) -> None:
    assert schedule(durations, 2, 1, 30.0, 6) == schedule(durations, 2, 1, 30.0, 6)
    assert schedule(durations, 2, 1, 30.0, 6) != schedule(durations, 3, 1, 30.0, 6)
    assert schedule(durations, 2, 1, 30.0, 6) != schedule(durations, 2, 2, 30.0, 6)


def test_few_utterances() -> None:
    assert schedule([], 0, 1, 30.0, 6) == []
    assert schedule([1.0], 0, 1, 30.0, 6) == [[0]]
    assert sorted(map(tuple, schedule([40.0, 50.0], 0, 1, 30.0, 6))) == [(0,), (1,)]  # longer than a batch: alone


def test_duration() -> None:
    mono = {"duration": 1.5}
    assert duration_of(mono) == 1.5
    assert duration_of({"tracks": [{"cut": mono}, {"cut": mono, "offset": 1.25}, {"cut": mono, "offset": 9, "mute": True}]}) == 2.75
