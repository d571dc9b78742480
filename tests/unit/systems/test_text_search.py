"""Beam search over texts: against all texts, against the same search written with lists, and against greedy search."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.streaming.state import StreamingState
from reallm.systems._text_search import check_search, search_texts, spread
from reallm.types import Emission

END = 3
LIMITS = torch.tensor([3, 0, 2, 3, 1])
POWERS = (0.0, 0.6, 1.0)


@dataclass
class History(StreamingState):
    """What was said, as one number, and in which utterance."""

    said: Tensor  # (R,) int64
    utterance: Tensor  # (R,) int64


class Table:
    """Log-probabilities that depend on all that was said."""

    def __init__(self, seed: int, sharpness: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = sharpness * torch.randn(len(LIMITS), 4 ** (4 + 1), 4, generator=generator)
        self.log_probs = torch.log_softmax(logits, dim=-1)
        self.rounds = 0

    def start(self) -> History:
        rows = len(LIMITS)
        return History(torch.zeros(rows, dtype=torch.int64), torch.arange(rows))

    def step(self, token_ids: Tensor, active: Tensor, state: History) -> tuple[Tensor, History]:
        self.rounds += 1
        state.said.mul_(4).add_(token_ids)  # into the state: that is allowed
        logits = self.log_probs[state.utterance, state.said % self.log_probs.size(1)]
        return torch.where(active.unsqueeze(1), logits, torch.nan), state  # what rows give that are not active does not matter

    def of(self, utterance: int, text: tuple[int, ...]) -> list[float]:
        """The log-probabilities of a text's tokens, its end included."""
        said, found = END, []
        for token in (*text, END):
            found.append(float(self.log_probs[utterance, said, token]))
            said = 4 * said + token
        return found

    def search(self, beam: int, power: float) -> Emission:
        return search_texts(self.step, self.start(), LIMITS, END, beam, power)


def texts(emission: Emission) -> list[tuple[int, ...]]:
    return [tuple(row[:length].tolist()) for row, length in zip(emission.token_ids, emission.lens.tolist(), strict=True)]


def with_lists(table: Table, utterance: int, beam: int, power: float) -> tuple[int, ...]:
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(int(LIMITS[utterance]) + 1):
        following = [END] if length == int(LIMITS[utterance]) else range(4)
        longer = [(score + table.of(utterance, (*said, token))[length], (*said, token)) for score, said in live for token in following]
        best = sorted(longer, reverse=True)[: beam - len(finished)]
        finished += [(score / len(said) ** power, said[:-1]) for score, said in best if said[-1] == END]
        live = [(score, said) for score, said in best if said[-1] != END]
    return max(finished)[1]


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("seed", range(6))
def test_a_beam_with_room_for_every_text_finds_the_best(seed: int, power: float) -> None:
    table = Table(seed)
    found = table.search(64, power)
    for utterance, limit in enumerate(LIMITS.tolist()):
        every = [text for length in range(limit + 1) for text in itertools.product(range(3), repeat=length)]
        best = max(every, key=lambda text: math.fsum(table.of(utterance, text)) / (len(text) + 1) ** power)
        assert texts(found)[utterance] == best
        assert found.log_probs[utterance, : len(best)].tolist() == pytest.approx(table.of(utterance, best)[:-1], abs=1e-6)


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_it_is_the_search_written_with_lists(beam: int) -> None:
    narrower = 0
    for seed, power in itertools.product(range(12), POWERS):
        table = Table(seed, sharpness=1.0)
        expected = [with_lists(table, utterance, beam, power) for utterance in range(len(LIMITS))]
        assert texts(table.search(beam, power)) == expected
        narrower += expected != texts(table.search(64, power))
    assert narrower, "a narrow beam misses the best text now and then, or this compares nothing"


def test_a_beam_of_one_is_greedy_and_counts_what_it_cut() -> None:
    cuts = set()
    for seed in range(8):
        table = Table(seed)
        found = table.search(1, 1.0)
        for utterance, limit in enumerate(LIMITS.tolist()):
            said: tuple[int, ...] = ()
            best = 0
            while True:
                code = 0
                for token in (END, *said):
                    code = 4 * code + token
                best = int(table.log_probs[utterance, code].argmax())
                if best == END or len(said) == limit:
                    break
                said = (*said, best)
            assert texts(found)[utterance] == said
            assert int(found.cap_hits[utterance]) == (best != END)
            cuts.add(best != END)
    assert cuts == {True, False}


def test_a_search_ends_when_nothing_can_become_better() -> None:
    table = Table(0)
    table.log_probs[:] = torch.log_softmax(torch.tensor([0.0, 0.0, 0.0, 9.0]), dim=0)
    assert texts(table.search(4, 0.0)) == [()] * len(LIMITS)
    assert table.rounds == 1


def test_tokens_are_spread_over_the_frames() -> None:
    table = Table(1)
    found = table.search(2, 1.0)
    found.lens = torch.tensor([3, 0, 2, 1, 1])
    frame = spread(found, torch.tensor([6, 0, 9, 3, 1])).frame
    assert [frame[b, : int(n)].tolist() for b, n in enumerate(found.lens)] == [[1, 3, 5], [], [2, 6], [1], [0]]


@pytest.mark.parametrize(("beam", "power", "words"), [(0, 1.0, "beam 0"), (2, -0.5, "length_power -"), (2, math.nan, "length_power nan")])
def test_settings_that_make_no_sense(beam: int, power: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_search(beam, power)
