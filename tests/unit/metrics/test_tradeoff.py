"""Error rates of two systems at the same delay, and how sure their difference is."""

import pytest

from reallm.metrics.paired import Group, compare, mean_errors, mix_errors
from reallm.metrics.statistics import PairedDifference
from reallm.metrics.tradeoff import Point, frontier, weights_at, wer_at

WORDS = {"a": 2, "b": 1, "c": 1}


def decoding(**errors: int) -> dict[str, Group]:
    """Of three utterances of two words, one and one."""
    return {name: Group(errors[name], WORDS[name], frozenset({(name, "word")})) for name in WORDS}


# Two decodings of either system, with their delays in ms and WER in percent.
FIRST = [Point(100, 75.0), Point(300, 25.0)], [decoding(a=2, b=1, c=0), decoding(a=0, b=1, c=0)]
SECOND = [Point(200, 50.0), Point(400, 25.0)], [decoding(a=1, b=0, c=1), decoding(a=1, b=0, c=0)]


def at(delay_ms: float, system: tuple[list[Point], list[dict[str, Group]]]) -> dict[str, Group]:
    points, decodings = system
    return mix_errors(decodings, weights_at(points, delay_ms) or [])


def difference(delay_ms: float) -> PairedDifference:
    return compare(at(delay_ms, FIRST), at(delay_ms, SECOND))


def test_error_rates_at_a_delay() -> None:
    points = [Point(400, 10), Point(200, 20), Point(300, 30), Point(800, 12)]
    assert frontier(points) == [(200, 20), (400, 10)]
    assert [wer_at(points, delay) for delay in (199, 200, 250, 400, 9999)] == [None, 20, 17.5, 10, 10]
    assert wer_at([], 100) is None and weights_at([], 100) is None


def test_shares_of_the_decodings_at_a_delay() -> None:
    points = [Point(400, 10), Point(200, 20), Point(300, 30), Point(800, 12), Point(400, 10)]
    assert weights_at(points, 250) == [0.25, 0.75, 0, 0, 0]
    assert weights_at(points, 200) == [0, 1, 0, 0, 0]
    assert weights_at(points, 400) == weights_at(points, 9999) == [1, 0, 0, 0, 0], "one of two that are alike"
    assert weights_at(points, 199) is None


def test_the_difference_of_two_mixtures_by_hand() -> None:
    first, second = at(250, FIRST), at(250, SECOND)
    assert {name: group.errors for name, group in first.items()} == {"a": 0.5, "b": 1, "c": 0}
    assert {name: group.errors for name, group in second.items()} == {"a": 1, "b": 0, "c": 0.75}
    found = difference(250)
    assert found.difference == wer_at(FIRST[0], 250) - wer_at(SECOND[0], 250) == -6.25  # type: ignore[operator]
    # Of the 27 draws of three utterances, c alone and b alone, one each, are the ends: 3.7 % of the draws, so more than 2.5 %.
    assert (found.low, found.high) == (-75.0, 100.0)
    # Differences -0.5, +1 and -0.75: less than zero in 17 draws, a tie in the 3 of two times a and once b.
    assert found.better == pytest.approx((17 + 3 / 2) / 27, abs=0.03)


def test_at_a_decoding_of_either_it_is_their_paired_comparison() -> None:
    assert difference(300) != difference(250)
    assert compare(at(300, FIRST), at(200, SECOND)) == compare(FIRST[1][1], SECOND[1][0])
    assert difference(9999) == compare(FIRST[1][1], SECOND[1][1])


def test_a_system_is_as_good_as_itself() -> None:
    equal = (0.0, 0.0, 0.0, 0.5)
    assert all(compare(at(delay, FIRST), at(delay, FIRST)) == equal for delay in (100, 163, 250, 999))
    # The same errors of three seeds at other delays: the weights are others, and what is rounded too.
    thirds = [mean_errors([decoding(a=1, b=3, c=7), decoding(a=1, b=1, c=7), decoding(a=0, b=1, c=7)])] * 2
    early, late = ([Point(101, 75), Point(331, 50)], thirds), ([Point(150, 75), Point(420, 50)], thirds)
    delays = range(150, 420)
    assert any(at(delay, early) != at(delay, late) for delay in delays)
    assert all(compare(at(delay, early), at(delay, late)) == equal for delay in delays[::10])
