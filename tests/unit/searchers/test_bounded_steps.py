"""Greedy search of a bounded number of decoder positions a step: the tokens are the same, and no row waits for another's response."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from reallm.contract.component import tiny
from reallm.contract.searcher import INTERLEAVERS, TalkingDecoder, embeddings, emissions_of, model
from reallm.decoders.llama import LlamaDecoder
from reallm.errors import InputError
from reallm.interleavers.blank import BlankInterleaver
from reallm.protocols import ResponseModel, RowOptions, to_the_end
from reallm.registry import find
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.searchers.sampling import SamplingSearcher
from reallm.searchers.speculative_greedy import SpeculativeGreedySearcher

CHUNK = 4


@dataclasses.dataclass
class Said:
    """By one row."""

    tokens: list[tuple[int, int, float]] = dataclasses.field(default_factory=list)  # id, frame, log-probability
    ends: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # where speech ended: frame, tokens before
    cap_hits: int = 0
    exhausted: bool = False


def search(searcher: Any, using: ResponseModel, x: Tensor, lens: Tensor, seed: int = 1) -> list[Said]:
    """All that is said of x (B, M, D), lens (B,), of streams that want to know where speech ends."""
    rows = lens.size(0)
    state = searcher.init_state(using, rows, CHUNK, "cpu", torch.float64)
    everywhere, zero = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.int64)
    searcher.begin(state, everywhere, RowOptions(zero, zero.double(), zero + 2, zero))
    said = [Said() for _ in range(rows)]
    for emission in emissions_of(searcher, using, x, lens, CHUNK, seed, state):
        assert emission.speech_ends is not None
        for row, one in enumerate(said):
            count, before = int(emission.lens[row]), len(one.tokens)
            columns = (values[row, :count].tolist() for values in (emission.token_ids, emission.frame, emission.log_probs))
            one.tokens += zip(*columns, strict=True)
            found = (emission.speech_ends.frame[row] >= 0).nonzero().flatten()
            one.ends += [(int(emission.speech_ends.frame[row, n]), before + int(emission.speech_ends.tokens[row, n])) for n in found]
            one.cap_hits += int(emission.cap_hits[row])
            one.exhausted |= emission.exhausted is not None and bool(emission.exhausted[row])
        assert (emission.pending is None) == (emission.full is None) == (searcher.positions is None)
        assert searcher.positions in (None, emission.token_ids.size(1))
    return said


@pytest.mark.parametrize("positions", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("interleaver", INTERLEAVERS)
@pytest.mark.parametrize("name", ["greedy", "sampling", "speculative_greedy"])
def test_the_answers_are_those_of_an_unbounded_search(name: str, interleaver: str, positions: int) -> None:
    using = model(interleaver)
    x, lens = embeddings(using.decoder, [13, 1, 8, 0])
    searcher: Any = find("searcher", name)
    whole = search(searcher(max_symbols=3), using, x, lens)
    assert search(searcher(max_symbols=3, positions=positions), using, x, lens, seed=positions) == [
        dataclasses.replace(one, tokens=[(token, frame, pytest.approx(score, abs=1e-9)) for token, frame, score in one.tokens])
        for one in whole
    ]
    assert sum(len(one.tokens) for one in whole) > 5


@pytest.mark.parametrize("positions", [1, 3])
def test_rows_end_at_the_decoders_capacity_as_in_an_unbounded_search(positions: int) -> None:
    torch.manual_seed(0)
    decoder = LlamaDecoder(vocab_size=6, dim=16, layers=2, heads=2, window=0, capacity=9).double().eval()
    torch.nn.init.normal_(decoder.output.weight, std=0.5)
    using = ResponseModel(decoder, BlankInterleaver(blank_id=5))
    x, lens = embeddings(decoder, [7, 2])
    whole = search(GreedySearcher(max_symbols=3), using, x, lens)
    assert search(GreedySearcher(max_symbols=3, positions=positions), using, x, lens) == whole
    assert [one.exhausted for one in whole] == [True, False]


class Talkative(TalkingDecoder):
    """Answers tokens to embeddings above 0, and to tokens that follow; BLANK to those below. Counts its positions."""

    steps = 0

    def embed(self, token_ids: Tensor) -> Tensor:
        return torch.ones(*token_ids.shape, self.input_dim, dtype=torch.float64)

    def step(self, inputs: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.steps += 1
        talks = (inputs[:, :1] > 0).double()
        return torch.cat([0 * talks, 40 * talks, 40 * (1 - talks)], dim=1), dataclasses.replace(state, position=state.position + active)


@pytest.mark.parametrize("positions", [1, 2, 5])
def test_speech_ends_where_it_ends_in_an_unbounded_search(positions: int) -> None:
    using = ResponseModel(Talkative(), BlankInterleaver(blank_id=2))
    generator = torch.Generator().manual_seed(1)
    x = torch.where(torch.rand(3, 30, 1, generator=generator) < 0.3, 1.0, -1.0).double().expand(-1, -1, 2)
    lens = torch.tensor([30, 11, 24])
    whole = search(GreedySearcher(max_symbols=3), using, x, lens)
    assert search(GreedySearcher(max_symbols=3, positions=positions), using, x, lens, seed=positions) == whole
    assert sum(len(one.ends) for one in whole) > 4


def test_a_quiet_row_is_done_after_as_many_positions_beside_one_that_talks_without_end() -> None:
    decoder = Talkative()
    using = ResponseModel(decoder, BlankInterleaver(blank_id=2))
    searcher = GreedySearcher(max_symbols=50, positions=CHUNK)
    state = searcher.init_state(using, 2, CHUNK, dtype=torch.float64)
    loud = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None].expand(2, CHUNK, 2)
    both, talker, never = torch.tensor([CHUNK, CHUNK]), torch.tensor([0, CHUNK]), torch.zeros(2, dtype=torch.bool)
    emission, state = searcher.step(using, loud, both, never, state)
    assert decoder.steps == CHUNK and emission.pending is not None and emission.full is not None
    assert emission.pending.tolist() == [True, False] and emission.lens.tolist() == [CHUNK, 0]
    steps = 1
    while bool(emission.pending[0]):  # the talker takes its turns, and the quiet row goes on with its next chunks
        emission, state = searcher.step(using, loud, talker, never, state)
        assert emission.pending is not None and not bool(emission.pending[1])
        steps += 1
    assert steps == -(-CHUNK * 51 // CHUNK) and decoder.steps == steps * CHUNK
    assert state.frame.tolist() == [CHUNK - 1, steps * CHUNK - 1]


def test_a_step_in_which_nobody_is_left_ends_early_where_that_costs_nothing() -> None:
    decoder = Talkative()
    using = ResponseModel(decoder, BlankInterleaver(blank_id=2))
    searcher = GreedySearcher(positions=100)
    state = searcher.init_state(using, 1, 3, dtype=torch.float64)
    searcher.step(using, -torch.ones(1, 3, 2, dtype=torch.float64), torch.tensor([3]), torch.tensor([True]), state)
    assert decoder.steps == 3


def test_backlog_is_full_before_a_push_could_overwrite_what_waits() -> None:
    using = ResponseModel(Talkative(), BlankInterleaver(blank_id=2))
    searcher = GreedySearcher(max_symbols=2, positions=1)
    state = searcher.init_state(using, 1, CHUNK, dtype=torch.float64)
    loud, never = torch.ones(1, CHUNK, 2, dtype=torch.float64), torch.tensor([False])
    pushed, heard, full = 0, [], torch.tensor([False])
    for number in range(60):
        brought = 0 if bool(full) else CHUNK
        # Frames beyond what a row brings are anything: here silence, which would be heard as no answer.
        emission, state = searcher.step(using, loud if brought else -loud, torch.tensor([brought]), never, state)
        assert emission.full is not None
        pushed, full = pushed + brought, emission.full
        heard += [int(emission.frame[0, 0])] * int(emission.lens)
        assert number or pushed == CHUNK
    assert heard == [frame for frame in range(20) for _ in range(2)]
    assert 2 * CHUNK <= pushed - (heard[-1] + 1) + CHUNK <= 3 * CHUNK


def test_whole_utterances_are_answered_in_one_step() -> None:
    searcher = GreedySearcher(max_symbols=3, positions=2)
    whole: Any = to_the_end(searcher)
    assert whole.positions is None and whole.max_symbols == 3 and whole.phrases is searcher.phrases and searcher.positions == 2
    beam = BeamSearcher()
    assert to_the_end(beam) is beam
    system: Any = tiny(find("system", "speech_reallm"))
    wav, lens = torch.randn(2, 9000, dtype=torch.float64), torch.tensor([9000, 5000])
    unbounded = system.recognize(wav, lens)
    system.searcher.positions = 2
    assert torch.equal(system.recognize(wav, lens).token_ids, unbounded.token_ids)


def test_wrong_numbers_and_a_state_of_another_sort_are_refused() -> None:
    for searcher_of in (GreedySearcher, SamplingSearcher, SpeculativeGreedySearcher):
        with pytest.raises(InputError, match="positions 0: a step needs at least one"):
            searcher_of(positions=0)
    using = model()
    searcher = GreedySearcher()
    state = searcher.init_state(using, 1, CHUNK, dtype=torch.float64)
    searcher.positions = 2
    x, lens = embeddings(using.decoder, [CHUNK])
    with pytest.raises(InputError, match="positions 2: the state has no room for what waits: set it before"):
        searcher.step(using, x, lens, lens < 0, state)
