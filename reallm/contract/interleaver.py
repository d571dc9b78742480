"""The contract of interleavers: one policy for training sequences and for run time. Legend: reallm/types.py."""

from typing import Any

import torch
from torch import Tensor

from reallm.contract.component import tiny
from reallm.contract.requirement import require, require_equal
from reallm.errors import InputError
from reallm.streaming.state import tensors
from reallm.types import Alignment, Interleaved

PERIOD = 100  # samples per speech embedding


def alignment(*ends: int) -> Alignment:
    """Tokens 0, 1, … that end there, each 30 samples long."""
    end = torch.tensor(ends, dtype=torch.int64)
    zeros = torch.zeros(len(ends), dtype=torch.float64)
    return Alignment(torch.arange(len(ends)), (end - 30).clamp(min=0), end, zeros, sample_rate=1000)


def examples(interleaver: Any, delay: int) -> tuple[list[Alignment], Tensor, Interleaved]:
    """Utterances with ends on multiples of the period, several tokens at once, none at all, and two embeddings after the last."""
    alignments = [alignment(0, 100, 101, 200, 650), alignment(), alignment(300, 300, 300), alignment(1, 99, 399)]
    speech_lens = torch.tensor([9, 3, 8, 6]) + delay
    laid_out = interleaver.build(alignments, speech_lens, torch.full((4,), delay), PERIOD)
    return alignments, speech_lens, laid_out


def check_sequences_are_whole(cls: Any) -> None:
    """Every speech embedding and every token is fed once and in order; nothing lies beyond a row's length."""
    interleaver = tiny(cls)
    for delay in (0, 1, 2):
        alignments, speech_lens, laid_out = examples(interleaver, delay)
        shape = laid_out.token_ids.shape
        require(laid_out.audio_index.shape == shape and laid_out.targets.shape == shape, f"delay {delay}: fields of different shape")
        for row, (given, length) in enumerate(zip(alignments, laid_out.lens.tolist(), strict=True)):
            what = f"delay {delay}, row {row}"
            audio, tokens = laid_out.audio_index[row], laid_out.token_ids[row]
            fed = audio[audio >= 0].tolist()
            require(fed == list(range(int(speech_lens[row]))), f"{what}: speech embeddings {fed} of {int(speech_lens[row])}")
            text = [t for t in tokens.tolist() if t >= 0 and t != interleaver.blank_id]
            require(text == given.token_ids.tolist(), f"{what}: tokens {text}, expected {given.token_ids.tolist()}")
            require(bool(((audio >= 0) | (tokens >= 0))[:length].all()), f"{what}: a position with no input")
            beyond = (audio[length:] >= 0) | (tokens[length:] >= 0) | (laid_out.targets[row, length:] != -100)
            require(not bool(beyond.any()), f"{what}: something lies beyond its {length} positions")


def check_no_token_is_early(cls: Any) -> None:
    """A token answers no speech embedding before max(1, ceil(end / period)) + delay, counted from 1: it was not heard yet."""
    interleaver = tiny(cls)
    for delay in (0, 1, 2):
        alignments, _, laid_out = examples(interleaver, delay)
        for row, given in enumerate(alignments):
            heard = (laid_out.audio_index[row] >= 0).cumsum(0)
            targets = laid_out.targets[row]
            answers = heard[(targets != -100) & (targets != interleaver.blank_id)].tolist()
            due = [max(1, -(-end // PERIOD)) + delay for end in given.end_samples.tolist()]
            early = len(answers) != len(due) or any(a < d for a, d in zip(answers, due, strict=True))
            require(not early, f"delay {delay}, row {row}: tokens answer speech embeddings {answers}, due at {due}")


def check_run_time_equals_training(cls: Any) -> None:
    """Answered with the targets, the run-time policy asks for the training sequence's inputs in the same order."""
    interleaver = tiny(cls)
    generator = torch.Generator().manual_seed(0)
    for delay in (0, 2):
        alignments, _, laid_out = examples(interleaver, delay)
        rows = len(alignments)
        policy, position = interleaver.init_policy(rows), torch.zeros(rows, dtype=torch.int64)
        text: list[list[int]] = [[] for _ in range(rows)]
        while bool((position < laid_out.lens).any()):
            active = (position < laid_out.lens) & (torch.rand(rows, generator=generator) > 0.3)
            at = (torch.arange(rows), position.clamp_max(laid_out.token_ids.size(1) - 1))
            what = f"delay {delay}, positions {position.tolist()}"
            require_equal(policy.token_ids[active], laid_out.token_ids[at][active], f"{what}: tokens that are fed")
            require_equal(policy.wants_audio[active], (laid_out.audio_index[at] >= 0)[active], f"{what}: speech embeddings that are fed")
            anything = torch.randint(interleaver.blank_id + 1, (rows,), generator=generator)
            output = torch.where(laid_out.targets[at] == -100, anything, laid_out.targets[at])
            before = [t.clone() for t in tensors(policy)]
            is_text, policy = interleaver.advance(output, active, policy)
            require(not bool((is_text & ~active).any()), f"{what}: a row that is not active put out text")
            for got, expected in zip(tensors(policy), before, strict=True):
                require_equal(got[~active], expected[~active], f"{what}: the policy of rows that are not active")
            for row in is_text.nonzero().flatten().tolist():
                text[row].append(int(output[row]))
            position = position + active
        for row, given in enumerate(alignments):
            require(
                text[row] == given.token_ids.tolist(), f"delay {delay}, row {row}: text {text[row]}, expected {given.token_ids.tolist()}"
            )
        require(bool(policy.wants_audio.all()), f"delay {delay}: after its sequence a row asks for something other than audio")


def check_responses_are_regular(cls: Any) -> None:
    """Speech embeddings k, 2 k, … are answered, k = ``response_every``, and no others."""
    interleaver = tiny(cls)
    for delay in (0, 1, 2):
        laid_out = examples(interleaver, delay)[2]
        index = laid_out.audio_index
        answered = laid_out.targets[index >= 0] != -100
        expected = (index[index >= 0] + 1) % interleaver.response_every == 0
        require_equal(answered, expected, f"delay {delay}: speech embeddings that are answered, every {interleaver.response_every}th")


def check_due_is_not_after_the_answer(cls: Any) -> None:
    """``due`` of the answers in training sequences is at most their speech embedding, at least 0, in order, and after the chunk before."""
    interleaver = tiny(cls)
    for delay, lasting in ((0, 1.0), (1, 0.4), (2, 3.0)):
        alignments, _, laid_out = examples(interleaver, delay)
        for row, given in enumerate(alignments):
            targets = laid_out.targets[row]
            heard = (laid_out.audio_index[row] >= 0).cumsum(0) - 1
            frame = heard[(targets != -100) & (targets != interleaver.blank_id)]
            if not len(frame):
                continue
            due = interleaver.due(frame, torch.full(frame.shape, lasting, dtype=torch.float64))
            what = f"delay {delay}, row {row}: answers to {frame.tolist()} due at {due.tolist()}, ends {given.end_samples.tolist()}"
            require(due.shape == frame.shape, what)
            require(bool((due <= frame).all() and (due >= 0).all() and (due.diff() >= 0).all()), what)
            require(bool(due[0] > frame[0] - interleaver.response_every), what)


def check_late_tokens_are_refused(cls: Any) -> None:
    """A token due after the last speech embedding raises InputError: it is never moved."""
    interleaver = tiny(cls)
    for ends, delay in ((301, 0), (300, 1), (900, 0)):
        try:
            interleaver.build([alignment(ends)], torch.tensor([3]), torch.tensor([delay]), PERIOD)
        except InputError:
            continue
        require(False, f"a token that ends at sample {ends} with delay {delay} was accepted with 3 speech embeddings of {PERIOD} samples")


CHECKS = [
    check_sequences_are_whole,
    check_no_token_is_early,
    check_run_time_equals_training,
    check_responses_are_regular,
    check_due_is_not_after_the_answer,
    check_late_tokens_are_refused,
]
