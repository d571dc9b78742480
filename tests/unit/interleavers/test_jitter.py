"""Times that are moved in training: within bounds, in order, and so that everything can still be laid out."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from reallm.errors import InputError
from reallm.interleavers._due import due_embeddings
from reallm.interleavers._jitter import jittered
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.interleavers.delayed_stream import DelayedStreamInterleaver
from reallm.registry import spec_of
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.types import Alignment, Batch

PERIOD = 100
INTERLEAVERS = [BlankInterleaver(9), BlankFedInterleaver(9), ChunkEosInterleaver(9, 3), DelayedStreamInterleaver(9)]


def spoken(*ends: int) -> Alignment:
    end = torch.tensor(ends, dtype=torch.int64)
    return Alignment(torch.arange(len(ends)) % 9, end - 1, end, torch.zeros(len(ends)).double(), 1000)


@pytest.mark.parametrize(("jitter", "delay"), [(1, 0), (1, 2), (3, 1)])
def test_each_token_is_moved_evenly_and_stays_in_order(jitter: int, delay: int) -> None:
    torch.manual_seed(0)
    alignment = spoken(1, 550, 1100, 1101, 1150, 3000)
    nominal, shifts = due_embeddings(alignment, PERIOD, delay), []
    for _ in range(400):
        moved = jittered(alignment, jitter, 60, delay, PERIOD)
        assert torch.equal(moved.token_ids, alignment.token_ids)
        due = due_embeddings(moved, PERIOD, delay)
        assert bool((due.diff() >= 0).all()) and int(due.min()) >= delay
        assert torch.equal(due, (moved.end_samples - 1).div(PERIOD, rounding_mode="floor").clamp(min=0) + delay), "already in order"
        shifts.append(due - nominal)
    found = torch.stack(shifts)
    assert int(found.min()) == -jitter and int(found.max()) == jitter
    counts = torch.bincount(found[:, 5] + jitter, minlength=2 * jitter + 1)
    assert float(counts.min()) > 0.6 * 400 / (2 * jitter + 1), "each step as often as another"
    assert abs(float(found[:, 1:].double().mean())) < 0.1, "tokens that lie close are not moved in one direction"
    assert set(found[:, 0].tolist()) == set(range(jitter + 1)), "nothing is before the first speech embedding and the delay"


@pytest.mark.parametrize("interleaver", INTERLEAVERS, ids=lambda each: each.component_name)
def test_whatever_could_be_laid_out_can_be(interleaver: Any) -> None:
    torch.manual_seed(0)
    for ends in ((700,), (100, 750, 800), (10, 20, 30), (499, 500, 650), ()):
        alignment, lens, delay = spoken(*ends), torch.tensor([12]), torch.tensor([2])
        interleaver.build([alignment], lens, delay, PERIOD)
        for _ in range(50):
            interleaver.build([jittered(alignment, 6, 12, 2, PERIOD)], lens, delay, PERIOD)
    several = spoken(980, 990, 1000)  # all are due at the last speech embedding, and BLANK's interleaving has room for that
    due = {tuple(due_embeddings(jittered(several, 1, 12, 2, PERIOD), PERIOD, 2).tolist()) for _ in range(200)}
    assert (11, 11, 11) in due and max(map(max, due)) == 11


def batch_of(system: Any) -> Batch:
    rng = torch.Generator().manual_seed(0)
    period = system.period_samples
    ends = torch.tensor([2, 4, 4, 7]) * period - 3
    aligned = Alignment(torch.tensor([1, 2, 1, 3]), ends - 5, ends, torch.zeros(4).double(), system.sample_rate)
    wav = torch.randn(1, 8 * period, generator=rng)
    return Batch(["a"], wav, torch.tensor([8 * period]), ["abc"], [aligned])


def test_in_training_alone_and_from_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = SpeechReaLLM.tiny()
    moved = SpeechReaLLM(**{**spec_of(plain).kwargs, "time_jitter": 2})
    moved.load_state_dict(plain.state_dict())
    batch = batch_of(plain)
    laid_out: list[torch.Tensor] = []
    build = plain.interleaver.build

    def noting(*arguments: Any) -> Any:
        found = build(*arguments)
        laid_out.append(found.targets)
        return found

    monkeypatch.setattr(type(plain.interleaver), "build", staticmethod(noting))

    def targets(system: Any, seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        system.loss(batch)
        return laid_out[-1]

    for system in (plain, moved.eval()):
        assert torch.equal(targets(system, 1), targets(plain, 2)), "no jitter"
    moved.train()
    drawn = [targets(moved, seed) for seed in range(20)]
    assert len({tuple(each.flatten().tolist()) for each in drawn}) > 3
    assert all(torch.equal(targets(moved, seed), each) for seed, each in reversed(list(enumerate(drawn)))), "whatever was drawn before"
    text = [each[(each >= 0) & (each != plain.interleaver.blank_id)].tolist() for each in drawn]
    assert text == [[1, 2, 1, 3]] * 20


def test_without_jitter_nothing_is_drawn() -> None:
    system = SpeechReaLLM.tiny().train()
    losses = []
    for kwargs in ({}, {"time_jitter": 0, "blank_weight": 1.0}):
        torch.manual_seed(0)
        other = SpeechReaLLM(**{**spec_of(system).kwargs, **kwargs}).train()
        other.load_state_dict(system.state_dict())
        torch.manual_seed(5)
        losses.append((other.loss(batch_of(other))[0], torch.rand(1)))
    assert all(torch.equal(*pair) for pair in zip(*losses, strict=True))


def test_a_jitter_below_zero() -> None:
    with pytest.raises(InputError, match=r"^time_jitter is -1: at least 0$"):
        SpeechReaLLM(**{**spec_of(SpeechReaLLM.tiny()).kwargs, "time_jitter": -1})


def test_scores_and_starts_stay() -> None:
    alignment = replace(spoken(100, 200), score=-3.0)
    moved = jittered(alignment, 1, 9, 1, PERIOD)
    assert moved.score == -3.0 and moved.start_samples is alignment.start_samples
