"""Every way to interleave goes through the same searchers: what they put out is what the training sequence of it says."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from reallm.contract.searcher import TalkingDecoder
from reallm.decoders.llama import LlamaDecoder
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.interleavers.delayed_stream import DelayedStreamInterleaver
from reallm.protocols import ResponseModel
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.systems.reallm import ReaLLM, Responses
from reallm.types import Emission

DIM, BLANK = 16, 3
KINDS = [BlankInterleaver, BlankFedInterleaver, partial(ChunkEosInterleaver, chunk_size=2), DelayedStreamInterleaver]
Kind = Callable[[int], Any]


def build(kind: Kind, searcher: Any, seed: int = 5) -> ReaLLM:
    torch.manual_seed(seed)
    decoder = LlamaDecoder(BLANK + 1, dim=DIM, layers=2, heads=2, window=12).double().eval()
    torch.nn.init.normal_(decoder.output.weight, std=0.5)
    return ReaLLM(decoder, kind(BLANK), searcher)


def speech(rows: int, length: int, seed: int = 6) -> torch.Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def answers(emission: Emission) -> list[Responses]:
    return [Responses(t[:n], f[:n]) for t, f, n in zip(emission.token_ids, emission.frame, emission.lens.tolist(), strict=True)]


def scored(model: ReaLLM, x: torch.Tensor, said: list[Responses], lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities (B, L, V) of the training sequences of what was said, their targets and which positions have one."""
    laid_out = model.lay_out(said, lens)
    log_probs = model.decoder.forward(model.inputs(x, laid_out), laid_out.lens).log_softmax(-1)
    return log_probs, laid_out.targets, laid_out.targets != -100


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_greedy_answers_are_the_most_probable_ones_of_their_training_sequence(kind: Kind) -> None:
    said = 0
    for seed in (1, 2, 4, 5, 7):
        model, x, lens = build(kind, GreedySearcher(20, blank_penalty=-2.0), seed), speech(3, 12, seed), torch.tensor([12, 7, 1])
        emission = model.respond(x, lens)
        assert emission.cap_hits.tolist() == [0, 0, 0], "another seed: a response was cut"
        log_probs, targets, asked = scored(model, x, answers(emission), lens)
        likely = log_probs + 2.0 * (torch.arange(BLANK + 1) == BLANK)
        assert torch.equal(likely.argmax(-1)[asked], targets[asked])
        text = asked & (targets != BLANK)
        found = torch.cat([p[:n] for p, n in zip(emission.log_probs, emission.lens.tolist(), strict=True)])
        torch.testing.assert_close(log_probs[text].gather(1, targets[text].unsqueeze(1)).squeeze(1).float(), found)
        said += int(emission.lens.sum())
    assert said > 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_greedy_search(kind: Kind) -> None:
    for seed in range(3):
        x, lens = speech(3, 9, seed), torch.tensor([9, 5, 0])
        greedy = build(kind, GreedySearcher(3, 0.7), seed).respond(x, lens)
        beam = build(kind, BeamSearcher(1, max_symbols=3, blank_penalty=0.7), seed).respond(x, lens)
        assert greedy.cap_hits.tolist() == beam.cap_hits.tolist()
        for one, other in zip(answers(greedy), answers(beam), strict=True):
            assert torch.equal(one.token_ids, other.token_ids) and torch.equal(one.at, other.at)


def every_answer(kind: Kind, length: int, cap: int) -> list[Responses]:
    """All that can be answered to ``length`` speech embeddings with responses of at most ``cap`` tokens."""
    interleaver = kind(BLANK)
    places = range(interleaver.response_every - 1, length, interleaver.response_every)
    most = 1 if isinstance(interleaver, DelayedStreamInterleaver) else cap
    texts = [text for size in range(most + 1) for text in itertools.product(range(BLANK), repeat=size)]
    found = []
    for path in itertools.product(texts, repeat=len(places)):
        at = [place for place, text in zip(places, path, strict=True) for _ in text]
        found.append(Responses(torch.tensor([t for text in path for t in text], dtype=torch.int64), torch.tensor(at, dtype=torch.int64)))
    return found


@pytest.mark.parametrize(("kind", "length", "cap"), [(KINDS[0], 2, 2), (KINDS[1], 2, 2), (KINDS[2], 5, 2), (KINDS[3], 4, 1)])
@torch.no_grad()
def test_a_wide_beam_is_exhaustive_search(kind: Kind, length: int, cap: int) -> None:
    paths = every_answer(kind, length, cap)
    searcher = BeamSearcher(len(paths), merge="off", max_symbols=cap)
    model, x, lens = build(kind, searcher), speech(1, length), torch.tensor([length])
    log_probs, targets, asked = scored(model, x.expand(len(paths), -1, -1), paths, lens.expand(len(paths)))
    total = torch.where(asked, log_probs.gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2), 0).sum(1)
    best = paths[int(total.argmax())]
    state = model.init_state(1, length, dtype=x.dtype)
    emission, after = model.step(x, lens, torch.tensor([True]), state)
    found = answers(emission)[0]
    assert torch.equal(found.token_ids, best.token_ids) and torch.equal(found.at, best.at) and len(found.at) > 0
    scores = [one.score for one in searcher.n_best(found.token_ids.tolist(), after)]
    assert scores == pytest.approx(total.sort(descending=True).values.tolist(), abs=1e-5)


@pytest.mark.parametrize("searcher", [GreedySearcher(2), BeamSearcher(2, max_symbols=2)])
def test_the_cap_is_on_the_tokens_of_one_response(searcher: Any) -> None:
    x, lens = torch.zeros(1, 7, 2, dtype=torch.float64), torch.tensor([7])
    found = {}
    for name, interleaver in (("chunk", ChunkEosInterleaver(2, chunk_size=3)), ("delayed", DelayedStreamInterleaver(2))):
        model = ResponseModel(TalkingDecoder(), interleaver)
        emission, _ = searcher.step(model, x, lens, torch.tensor([True]), searcher.init_state(model, 1, 7, dtype=torch.float64))
        found[name] = (emission.frame[0, : emission.lens[0]].tolist(), int(emission.cap_hits))
    assert found == {"chunk": ([2, 2, 5, 5], 2), "delayed": ([0, 1, 2, 3, 4, 5, 6], 0)}
