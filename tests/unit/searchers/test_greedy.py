"""Greedy search and sampling over a small real decoder."""

import pytest
import torch

from reallm.decoders.llama import LlamaDecoder
from reallm.errors import InputError
from reallm.interleavers.blank import BlankInterleaver
from reallm.protocols import ResponseModel
from reallm.searchers.greedy import GreedySearcher
from reallm.searchers.sampling import SamplingSearcher, gumbel_noise


@pytest.fixture
def model() -> ResponseModel:
    torch.manual_seed(5)
    decoder = LlamaDecoder(vocab_size=6, dim=16, layers=2, heads=2, window=12).double().eval()
    torch.nn.init.normal_(decoder.output.weight, std=0.5)
    return ResponseModel(decoder, BlankInterleaver(blank_id=5))


def by_definition(model: ResponseModel, speech: torch.Tensor, cap: int) -> tuple[list[tuple[int, int]], int]:
    """(token, frame) of one stream with a growing sequence and the parallel pass only; and how often the cap cut."""
    inputs, tokens, hits = [], [], 0
    for m in range(speech.size(0)):
        inputs.append(speech[m])
        symbols = 0
        while True:
            answer = int(model.decoder.forward(torch.stack(inputs).unsqueeze(0), torch.tensor([len(inputs)]))[0, -1].argmax())
            if answer != 5 and symbols == cap:
                hits += 1
                break
            if answer == 5:
                break
            tokens.append((answer, m))
            inputs.append(model.decoder.embed(torch.tensor(answer)))
            symbols += 1
    return tokens, hits


@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 0, 3, 2]])
def test_equals_the_definition_for_any_pieces_and_mixed_rows(model: ResponseModel, pieces: list[int]) -> None:
    torch.manual_seed(6)
    speech = torch.randn(3, 9, 16, dtype=torch.float64) * 3
    lens = torch.tensor([9, 5, 0])
    searcher = GreedySearcher(max_symbols=3)
    state = searcher.init_state(model, 3, capacity=9, dtype=torch.float64)
    found: list[list[tuple[int, int]]] = [[], [], []]
    hits = torch.zeros(3, dtype=torch.int64)
    at = 0
    for piece in pieces:
        now = (lens - at).clamp(0, piece)
        chunk = torch.nn.functional.pad(speech[:, at : at + piece], (0, 0, 0, 9 - piece))
        emission, state = searcher.step(model, chunk, now, torch.zeros(3, dtype=torch.bool), state)
        hits += emission.cap_hits
        for b in range(3):
            n = int(emission.lens[b])
            found[b] += zip(emission.token_ids[b, :n].tolist(), emission.frame[b, :n].tolist(), strict=True)
        at += piece
    total = 0
    for b in range(3):
        expected, cut = by_definition(model, speech[b, : lens[b]], 3)
        assert found[b] == expected
        assert int(hits[b]) == cut
        total += len(expected)
    assert total > 5 and int(hits.sum()) > 0  # the case is not empty


def test_blank_penalty_brings_more_text(model: ResponseModel) -> None:
    torch.manual_seed(7)
    speech = torch.randn(1, 20, 16, dtype=torch.float64)
    counts = []
    for penalty in (-5.0, 0.0, 5.0):
        searcher = GreedySearcher(max_symbols=4, blank_penalty=penalty)
        state = searcher.init_state(model, 1, 20, dtype=torch.float64)
        emission, _ = searcher.step(model, speech, torch.tensor([20]), torch.tensor([True]), state)
        counts.append(int(emission.lens[0]))
    assert counts[0] < counts[1] < counts[2]


def test_sampling_is_independent_of_neighbours_and_of_the_seed_only(model: ResponseModel) -> None:
    torch.manual_seed(8)
    speech = torch.randn(2, 9, 16, dtype=torch.float64)

    def sample(rows: slice, seed: int) -> list[int]:
        searcher = SamplingSearcher(seed=seed, max_symbols=3)
        part = speech[rows]
        state = searcher.init_state(model, part.size(0), 9, dtype=torch.float64)
        emission, _ = searcher.step(model, part, torch.full((part.size(0),), 9), torch.ones(part.size(0), dtype=torch.bool), state)
        return emission.token_ids[0, : int(emission.lens[0])].tolist()

    assert sample(slice(0, 1), 0) == sample(slice(0, 2), 0)
    assert sample(slice(0, 1), 0) != sample(slice(0, 1), 1)


def test_cold_sampling_is_greedy(model: ResponseModel) -> None:
    torch.manual_seed(9)
    speech, lens, final = torch.randn(2, 9, 16, dtype=torch.float64), torch.tensor([9, 9]), torch.ones(2, dtype=torch.bool)
    results = []
    for searcher in (GreedySearcher(max_symbols=3), SamplingSearcher(temperature=1e-6, max_symbols=3)):
        emission, _ = searcher.step(model, speech, lens, final, searcher.init_state(model, 2, 9, dtype=torch.float64))
        results.append((emission.token_ids[emission.token_ids.ne(0)].tolist(), emission.lens.tolist()))
    assert results[0] == results[1]


def test_gumbel_noise_has_the_moments_of_the_distribution() -> None:
    noise = gumbel_noise(3, torch.arange(20000), 10).flatten()
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - torch.pi**2 / 6) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1])) < 0.01


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="max_symbols 0"):
        GreedySearcher(max_symbols=0)
    with pytest.raises(InputError, match="temperature 0"):
        SamplingSearcher(temperature=0)


@pytest.mark.parametrize("pieces", [[4], [1] * 4])
def test_a_row_that_comes_to_the_decoders_capacity_ends_alone(model: ResponseModel, pieces: list[int]) -> None:
    torch.manual_seed(6)
    speech = torch.randn(2, 4, 16, dtype=torch.float64) * 3
    searcher = GreedySearcher(max_symbols=3)

    def search(capacity: int) -> tuple[list[list[int]], list[bool], list[int]]:
        """Tokens, whether they were cut, and decoder positions of rows of 4 and 2 speech embeddings."""
        decoder = LlamaDecoder(vocab_size=6, dim=16, layers=2, heads=2, window=0, capacity=capacity).double().eval()
        decoder.load_state_dict(model.decoder.state_dict())  # type: ignore[attr-defined]
        using = ResponseModel(decoder, model.interleaver)
        state = searcher.init_state(using, 2, capacity=4, dtype=torch.float64)
        tokens: list[list[int]] = [[], []]
        at, never = 0, torch.zeros(2, dtype=torch.bool)
        for piece in pieces:
            chunk = torch.nn.functional.pad(speech[:, at : at + piece], (0, 0, 0, 4 - piece))
            emission, state = searcher.step(using, chunk, (torch.tensor([4, 2]) - at).clamp(0, piece), never, state)
            for row in range(2):
                tokens[row] += emission.token_ids[row, : int(emission.lens[row])].tolist()
            at += piece
        assert emission.exhausted is not None
        return tokens, emission.exhausted.tolist(), state.position.tolist()

    whole, cut, positions = search(capacity=99)
    assert cut == [False, False]
    assert search(capacity=positions[0]) == (whole, cut, positions), "all of it is used"
    first, second = positions
    for capacity in range(second, first):
        tokens, cut, positions = search(capacity)
        assert (cut, positions) == ([True, False], [capacity, second])
        assert tokens[0] == whole[0][: len(tokens[0])]
        assert tokens[1] == whole[1]
    assert len(search(second)[0][0]) < len(whole[0])
