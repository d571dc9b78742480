"""A response per chunk, against a plain loop over the definition."""

import math
from fractions import Fraction

import pytest
import torch

from reallm.errors import InputError
from reallm.interleavers.blank import BlankInterleaver
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.types import Alignment

BLANK, PERIOD = 9, 640


def alignment(ends: list[int]) -> Alignment:
    end = torch.tensor(ends, dtype=torch.int64)
    return Alignment(torch.arange(len(ends)) % BLANK, end - 1, end, torch.zeros(len(ends)).double(), 8000)


def by_definition(a: Alignment, speech: int, delay: int, chunk: int) -> list[tuple[int, int, int]]:
    """(token fed, speech embedding fed, target) of each position."""
    sequence: list[tuple[int, int, int]] = []
    due = [max(1, math.ceil(Fraction(int(end), PERIOD))) + delay for end in a.end_samples]
    for first in range(1, speech + 1, chunk):
        heard = range(first, min(first + chunk, speech + 1))
        tokens = [int(t) for t, d in zip(a.token_ids, due, strict=True) if first <= d < first + chunk]
        sequence += [(-1, m - 1, -100) for m in heard]
        if len(heard) == chunk:
            inputs = [sequence.pop()[:2], *((t, -1) for t in tokens)]
            sequence += [(*i, t) for i, t in zip(inputs, [*tokens, BLANK], strict=True)]
    return sequence


@pytest.mark.parametrize("chunk", [2, 3, 4])
def test_equals_the_definition(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    interleaver = ChunkEosInterleaver(BLANK, chunk)
    for _ in range(30):
        rows, delay = [], torch.randint(0, 3, (4,), generator=generator)
        for _ in range(4):
            u = int(torch.randint(0, 12, (), generator=generator))
            speech = int(torch.randint(1, 9, (), generator=generator))
            rows.append((alignment(torch.randint(0, speech * PERIOD + 1, (u,), generator=generator).sort().values.tolist()), speech))
        # To the end of the chunk, and for some beyond it.
        lens = [-(-(s + int(d)) // chunk) * chunk + row % 2 for row, ((_, s), d) in enumerate(zip(rows, delay, strict=True))]
        built = interleaver.build([a for a, _ in rows], torch.tensor(lens), delay, PERIOD)
        for b, (a, _) in enumerate(rows):
            found = torch.stack([built.token_ids[b], built.audio_index[b], built.targets[b]], dim=1)
            size = int(built.lens[b])
            assert [tuple(position) for position in found[:size].tolist()] == by_definition(a, lens[b], int(delay[b]), chunk)
            assert (found[size:] == torch.tensor([-1, -1, -100])).all()


def test_chunks_of_one_are_the_blank_interleaving() -> None:
    given = [alignment([1, 640, 641, 3000]), alignment([])], torch.tensor([7, 2]), torch.tensor([1, 0]), PERIOD
    one, other = ChunkEosInterleaver(BLANK, 1).build(*given), BlankInterleaver(BLANK).build(*given)
    for name in ("token_ids", "audio_index", "targets", "lens"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_chunk_that_is_not_whole_answers_nothing() -> None:
    build = ChunkEosInterleaver(BLANK, 4).build
    with pytest.raises(InputError, match="due at speech embedding 8 of 7"):
        build([alignment([5 * PERIOD])], torch.tensor([7]), torch.tensor([0]), PERIOD)
    targets = build([alignment([4 * PERIOD])], torch.tensor([7]), torch.tensor([0]), PERIOD).targets
    assert targets[0].tolist()[-4:] == [BLANK, -100, -100, -100]


def test_tokens_of_a_response_are_spread_over_its_chunk() -> None:
    due = ChunkEosInterleaver(BLANK, 4).due
    frame = torch.tensor([[3, 7, 7, 11, 11, 11, 11], [3, 3, 3, 15, 0, 0, 0]])  # zeros: padding
    assert due(frame, torch.ones(2, 7)).tolist()[0] == [1, 4, 6, 8, 9, 10, 11]
    assert due(frame, torch.ones(2, 7)).tolist()[1][:4] == [0, 1, 3, 13]


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="chunk_size is 0: at least 1"):
        ChunkEosInterleaver(BLANK, 0)
