"""Greedy search with several positions a pass: its answers are those of greedy search, from fewer passes."""

import pytest
import torch
from torch import Tensor

from reallm.contract.emissions import require_same_answers
from reallm.contract.searcher import INTERLEAVERS, embeddings, model, search
from reallm.errors import InputError
from reallm.protocols import ResponseModel
from reallm.registry import find
from reallm.searchers.greedy import GreedySearcher
from reallm.searchers.speculative_greedy import SpeculativeGreedySearcher
from reallm.streaming.state import select, tensors


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
    """A decoder that answers BLANK but at some positions, there always the same token, and counts its passes."""

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
        logits[:, :, 3] = torch.where(speaks, 1e3, logits[:, :, 3])
        return logits, extension


@pytest.mark.parametrize(
    ("speaks", "passes"),
    [
        ([], 3),  # 12 speech embeddings
        ([0], 4),  # the one that is answered, and 12 positions after it
        ([2, 3], 5),  # up to position 2, position 3, 10 more
        ([5], 4),  # up to 3, up to 5, 7 more
        ([11], 4),  # up to 3, up to 7, up to 11, and the token: a pass of one position
        ([11, 12], 5),  # likewise, and the token once more, whose input is the same
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


def wide_model() -> ResponseModel:
    """Wide enough that the last bits of what is computed at a position hang on where in its pass it lies."""
    torch.manual_seed(0)
    decoder = find("decoder", "llama")(vocab_size=40, dim=128, layers=2, heads=4, window=32).eval()
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    return ResponseModel(decoder, find("interleaver", "blank")(blank_id=39))


@torch.no_grad()
def test_a_row_is_equal_to_the_bit_whatever_its_neighbours_say() -> None:
    using, rows, chunk = wide_model(), 4, 6
    speech = torch.randn(8, rows, chunk, 128, generator=torch.Generator().manual_seed(1))

    def row_0(neighbours: int) -> tuple[list[list[float]], list[Tensor]]:
        searcher = SpeculativeGreedySearcher(ahead=5, max_symbols=3, blank_penalty=-1.0)
        state, said = searcher.init_state(using, rows, chunk), []
        for heard in speech:
            lens = torch.tensor([chunk, *[neighbours] * (rows - 1)])
            emission, state = searcher.step(using, heard, lens, torch.zeros(rows, dtype=torch.bool), state)
            said.append([*emission.token_ids[0, : emission.lens[0]].tolist(), *emission.log_probs[0, : emission.lens[0]].tolist()])
        return said, tensors(select(state.decoder, torch.tensor([0])))

    alone, rings = row_0(neighbours=0)
    assert sum(len(said) for said in alone) > 20
    for neighbours in (1, 4, 6):
        said, others = row_0(neighbours)
        assert said == alone
        assert all(torch.equal(ring, other) for ring, other in zip(rings, others, strict=True))


@torch.no_grad()
def test_a_pass_reads_the_weights_for_all_rows_that_need_one() -> None:
    using = model()
    quiet = Quiet(using.decoder, [2], using.interleaver.blank_id)  # type: ignore[arg-type]
    x, lens = embeddings(using.decoder, [7, 7, 2])
    # Positions 0 to 2, in the shortest row 0 and 1; then the token of position 2 and four embeddings.
    answers = search(SpeculativeGreedySearcher(ahead=5), ResponseModel(quiet, using.interleaver), x, lens, 7, 0)  # type: ignore[arg-type]
    assert [len(row.token_ids) for row in answers] == [1, 1, 0]
    assert quiet.passes == 2


def test_no_position_a_pass() -> None:
    with pytest.raises(InputError, match="ahead 0: a pass answers at least one position"):
        SpeculativeGreedySearcher(ahead=0)


@torch.no_grad()
def test_more_positions_a_pass_than_the_window_has() -> None:
    using = model()  # a window of 5
    x, lens = embeddings(using.decoder, [3])
    with pytest.raises(InputError, match="6 positions at once in a window of 5"):
        search(SpeculativeGreedySearcher(ahead=6), using, x, lens, 3, 0)
