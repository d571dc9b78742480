"""Greedy search with several positions a pass: its answers are those of greedy search, from fewer passes."""

import pytest
import torch
from torch import Tensor

from reallm.contract.emissions import require_same_answers
from reallm.contract.searcher import INTERLEAVERS, embeddings, model, search
from reallm.errors import InputError
from reallm.searchers.greedy import GreedySearcher
from reallm.searchers.speculative_greedy import SpeculativeGreedySearcher


@pytest.mark.parametrize("interleaver", INTERLEAVERS)
@pytest.mark.parametrize(("ahead", "chunk"), [(1, 3), (2, 13), (3, 1), (5, 4)])
@torch.no_grad()
def test_says_what_greedy_search_says(interleaver: str, ahead: int, chunk: int) -> None:
    using = model(interleaver)
    x, lens = embeddings(using.decoder, [13, 1, 8, 0])
    expected = search(GreedySearcher(max_symbols=3), using, x, lens, 13, 0)
    assert sum(len(answers.token_ids) for answers in expected) > 5
    for row, answers in enumerate(search(SpeculativeGreedySearcher(ahead, max_symbols=3), using, x, lens, chunk, seed=ahead)):
        require_same_answers(answers, expected[row], f"row {row}")


class Quiet(torch.nn.Module):
    """A decoder that answers BLANK but at some positions, and counts its passes."""

    def __init__(self, decoder: torch.nn.Module, speaks: list[int], blank_id: int) -> None:
        super().__init__()
        self.decoder, self.speaks, self.blank_id, self.passes = decoder, torch.tensor(speaks), blank_id, 0
        self.vocab_size, self.input_dim, self.embed, self.init_state = 11, 16, decoder.embed, decoder.init_state
        self.accept = decoder.accept

    def extend(self, inputs: Tensor, state: object) -> tuple[Tensor, object]:
        self.passes += 1
        logits, extension = self.decoder.extend(inputs, state)
        speaks = torch.isin(state.position.unsqueeze(1) + torch.arange(inputs.size(1)), self.speaks)  # type: ignore[attr-defined]
        logits[:, :, self.blank_id] = torch.where(speaks, -1e4, 1e4)
        return logits, extension


@pytest.mark.parametrize(
    ("speaks", "passes"),
    [
        ([], 3),  # 12 speech embeddings
        ([0], 4),  # the one that is answered, and 12 positions after it
        ([2, 3], 5),  # up to position 2, position 3, 10 more
        ([5], 4),  # up to 3, up to 5, 7 more
    ],
)
@torch.no_grad()
def test_a_pass_ends_at_the_first_position_that_is_answered_with_a_token(speaks: list[int], passes: int) -> None:
    using = model()
    quiet = Quiet(using.decoder, speaks, using.interleaver.blank_id)  # type: ignore[arg-type]
    x, lens = embeddings(using.decoder, [12])
    answers = search(SpeculativeGreedySearcher(ahead=4), type(using)(quiet, using.interleaver), x, lens, 12, 0)  # type: ignore[arg-type]
    assert len(answers[0].token_ids) == len(speaks)
    assert quiet.passes == passes


def test_no_position_a_pass() -> None:
    with pytest.raises(InputError, match="ahead 0: a pass answers at least one position"):
        SpeculativeGreedySearcher(ahead=0)


@torch.no_grad()
def test_more_positions_a_pass_than_the_window_has() -> None:
    using = model()  # a window of 5
    x, lens = embeddings(using.decoder, [3])
    with pytest.raises(InputError, match="6 positions at once in a window of 5"):
        search(SpeculativeGreedySearcher(ahead=6), using, x, lens, 3, 0)
