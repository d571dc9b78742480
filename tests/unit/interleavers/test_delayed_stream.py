"""One token per speech embedding, against a plain loop over the definition."""

import math
from fractions import Fraction

import pytest
import torch

from reallm.errors import InputError
from reallm.interleavers.delayed_stream import DelayedStreamInterleaver
from reallm.types import Alignment

BLANK, PERIOD = 9, 640


def alignment(ends: list[int]) -> Alignment:
    end = torch.tensor(ends, dtype=torch.int64)
    return Alignment(torch.arange(len(ends)) % BLANK, end - 1, end, torch.zeros(len(ends)).double(), 8000)


def places(a: Alignment, delay: int) -> list[int]:
    """The speech embedding (from 1) that each token answers: the first one from when it is due on that no other has."""
    taken: list[int] = []
    for end in a.end_samples:
        due = max(1, math.ceil(Fraction(int(end), PERIOD))) + delay
        taken.append(max([due, *(t + 1 for t in taken)]))
    return taken


def test_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    interleaver, queued = DelayedStreamInterleaver(BLANK), 0
    for _ in range(30):
        delay = torch.randint(0, 3, (4,), generator=generator)
        rows = [alignment(torch.randint(0, 6000, (u,), generator=generator).sort().values.tolist()) for u in (0, 1, 4, 9)]
        taken = [places(a, int(d)) for a, d in zip(rows, delay, strict=True)]
        lens = torch.tensor([max([0, *t]) + 1 + row % 2 for row, t in enumerate(taken)])
        built = interleaver.build(rows, lens, delay, PERIOD)
        assert torch.equal(built.lens, lens)
        for b, (a, size) in enumerate(zip(rows, lens.tolist(), strict=True)):
            answers = [BLANK] * size
            for token, place in zip(a.token_ids.tolist(), taken[b], strict=True):
                answers[place - 1] = token
            assert built.targets[b, :size].tolist() == answers
            assert built.token_ids[b, :size].tolist() == [BLANK, *answers[:-1]]
            assert built.audio_index[b, :size].tolist() == list(range(size))
            beyond = torch.stack([built.token_ids[b, size:], built.audio_index[b, size:], built.targets[b, size:]])
            assert (beyond == torch.tensor([[-1], [-1], [-100]])).all()
            queued += sum(t > max(1, -(-int(e) // PERIOD)) + int(delay[b]) for t, e in zip(taken[b], a.end_samples, strict=True))
    assert queued > 20  # the case is not empty


def test_a_queue_that_is_longer_than_the_flush_is_refused() -> None:
    build = DelayedStreamInterleaver(BLANK).build
    three = alignment([2 * PERIOD] * 3)
    assert build([three], torch.tensor([4]), torch.tensor([0]), PERIOD).targets.tolist() == [[BLANK, 0, 1, 2]]
    with pytest.raises(InputError, match=r"place at speech embedding 5 of 4, one token each: .*flush_periods"):
        build([three], torch.tensor([4]), torch.tensor([1]), PERIOD)


def test_a_token_right_after_another_was_due_its_duration_after_it() -> None:
    due = DelayedStreamInterleaver(BLANK).due
    frame = torch.tensor([[2, 3, 4, 8, 9, 0], [5, 7, 8, 9, 10, 11]])
    lasts = torch.tensor([[0.5, 0.5, 0.25, 0.5, 3.0, 9.0], [0.25, 0.25, 2.0, 0.5, 1.0, 4.0]]).double()
    assert due(frame, lasts)[0, :5].tolist() == [2, 2.5, 2.75, 8, 9]
    assert due(frame, lasts)[1].tolist() == [5, 7, 8, 8.5, 9.5, 11]
    assert due(frame[0], lasts[0])[:5].tolist() == [2, 2.5, 2.75, 8, 9]
