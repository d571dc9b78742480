"""The BLANK interleaver against a plain loop over the definition, and against its own run-time policy."""

import math
from fractions import Fraction

import pytest
import torch

from reallm.errors import InputError
from reallm.interleavers._due import due_embeddings
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.types import Alignment

BLANK = 9


def alignment(ends: list[int], ids: list[int] | None = None) -> Alignment:
    u = len(ends)
    end = torch.tensor(ends, dtype=torch.int64)
    return Alignment(torch.tensor(ids or [i % BLANK for i in range(u)], dtype=torch.int64), end - 1, end, torch.zeros(u).double(), 8000)


def by_definition(a: Alignment, speech: int, delay: int, period: int, feed_blank: bool) -> list[tuple[int, int, int]]:
    """(token fed, speech embedding fed, target) of each position."""
    sequence, u = [], 0
    due = [max(1, math.ceil(Fraction(int(end), period))) + delay for end in a.end_samples]
    for m in range(1, speech + 1):
        inputs = [(-1, m - 1)]
        while u < len(due) and due[u] == m:
            inputs.append((int(a.token_ids[u]), -1))
            u += 1
        targets = [token for token, _ in inputs[1:]] + [BLANK]
        sequence += [(*i, t) for i, t in zip(inputs, targets, strict=True)]
        if feed_blank:
            sequence.append((BLANK, -1, -100))
    return sequence


@pytest.mark.parametrize("kind", [BlankInterleaver, BlankFedInterleaver])
def test_equals_the_definition(kind: type[BlankInterleaver]) -> None:
    generator = torch.Generator().manual_seed(0)
    interleaver = kind(BLANK)
    for _ in range(50):
        rows = []
        for _ in range(4):
            u = int(torch.randint(0, 12, (), generator=generator))
            speech = int(torch.randint(1, 9, (), generator=generator))
            ends = torch.randint(0, speech * 640 + 1, (u,), generator=generator).sort().values
            rows.append((alignment(ends.tolist()), speech))
        delay = torch.randint(0, 3, (4,), generator=generator)
        lens = torch.tensor([s for _, s in rows]) + delay
        built = interleaver.build([a for a, _ in rows], lens, delay, 640)
        for b, (a, _) in enumerate(rows):
            expected = by_definition(a, int(lens[b]), int(delay[b]), 640, kind.feeds_blank)
            size = int(built.lens[b])
            assert size == len(expected)
            actual = list(
                zip(built.token_ids[b, :size].tolist(), built.audio_index[b, :size].tolist(), built.targets[b, :size].tolist(), strict=True)
            )
            assert actual == expected
            assert (
                (built.targets[b, size:] == -100).all()
                and (built.token_ids[b, size:] == -1).all()
                and (built.audio_index[b, size:] == -1).all()
            )


@pytest.mark.parametrize("kind", [BlankInterleaver, BlankFedInterleaver])
def test_a_model_that_answers_the_targets_sees_the_training_sequence(kind: type[BlankInterleaver]) -> None:
    interleaver = kind(BLANK)
    a = alignment([1, 640, 641, 641, 3000], [3, 3, 1, 4, 1])
    built = interleaver.build([a], torch.tensor([7]), torch.tensor([1]), 640)
    policy, heard = interleaver.init_policy(1), -1
    for position in range(int(built.lens[0])):
        assert int(policy.token_ids[0]) == int(built.token_ids[0, position])
        if bool(policy.wants_audio[0]):
            heard += 1
        assert int(built.audio_index[0, position]) == (heard if bool(policy.wants_audio[0]) else -1)
        target = int(built.targets[0, position])
        answer = torch.tensor([5 if target == -100 else target])  # what no target asks for is not looked at
        text, policy = interleaver.advance(answer, torch.tensor([True]), policy)
        assert bool(text[0]) == (target not in (-100, BLANK))


def test_exact_multiples_are_due_at_that_multiple() -> None:
    """With seconds as floats, a fifth of these land one late."""
    due = due_embeddings(alignment([640 * k for k in range(1, 1001)]), 640, 0)
    assert due.tolist() == list(range(1000))


def test_a_token_after_the_audio_is_refused() -> None:
    with pytest.raises(InputError, match="lengthen the audio"):
        BlankInterleaver(BLANK).build([alignment([641])], torch.tensor([1]), torch.tensor([0]), 640)


def test_inactive_rows_keep_their_policy() -> None:
    interleaver = BlankInterleaver(BLANK)
    policy = interleaver.init_policy(2)
    text, policy = interleaver.advance(torch.tensor([4, 4]), torch.tensor([True, False]), policy)
    assert text.tolist() == [True, False]
    assert policy.token_ids.tolist() == [4, -1] and policy.wants_audio.tolist() == [False, True]
