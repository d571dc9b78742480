"""ReaLLM over streams that are no speech: its loss by the definition, prompts, streaming in pieces, and what it imports."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from reallm.decoders.llama import LlamaDecoder
from reallm.decoders.lstm import LSTMDecoder
from reallm.errors import InputError
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.registry import spec_of
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.state import StreamingState
from reallm.systems.reallm import ReaLLM, Responses
from reallm.systems.speech_reallm import SpeechReaLLM

BLANK, DIM = 4, 8


def build(searcher: Any = None, decoder: Any = None, interleaver: Any = BlankInterleaver) -> Any:
    torch.manual_seed(3)
    decoder = decoder or LSTMDecoder(BLANK + 1, DIM)
    return ReaLLM(decoder.double().eval(), interleaver(blank_id=BLANK), searcher or GreedySearcher(max_symbols=2))


def streams(rows: int, length: int) -> torch.Tensor:
    return 2 * torch.randn(rows, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_every_answer_and_a_prompt_is_how_a_stream_begins() -> None:
    model = build()
    x = torch.cat([model.decoder.embed(torch.tensor([[2, 0]])), streams(1, 3)], dim=1)
    loss, stats = model.loss(x, model.lay_out([Responses(torch.tensor([1, 3, 1]), torch.tensor([3, 3, 4]))], torch.tensor([5])))
    said = model.decoder.embed(torch.tensor([1, 3, 1]))
    inputs = torch.stack([*x[0, :4], *said[:2], x[0, 4], said[2]])
    targets = torch.tensor([BLANK, BLANK, BLANK, 1, 3, BLANK, 1, BLANK])
    expected = torch.nn.functional.cross_entropy(model.decoder.forward(inputs.unsqueeze(0), torch.tensor([8]))[0].float(), targets)
    torch.testing.assert_close(loss, expected)
    assert stats["targets"] == 8


@pytest.mark.parametrize("interleaver", [BlankInterleaver, BlankFedInterleaver])
@pytest.mark.parametrize("searcher", [GreedySearcher(2, blank_penalty=0.4), BeamSearcher(2, max_symbols=2, blank_penalty=0.4)])
def test_answers_do_not_depend_on_the_pieces_that_a_stream_comes_in(searcher: Any, interleaver: Any) -> None:
    model = build(searcher, interleaver=interleaver)
    x, lens = streams(2, 11), torch.tensor([11, 7])
    whole = model.respond(x, lens)
    assert int(whole.lens.min()) > 0, "some answers"
    said: list[list[tuple[int, int]]] = [[], []]
    state: StreamingState = model.init_state(2, 4, dtype=x.dtype)
    for start in range(0, 12, 4):
        piece = torch.nn.functional.pad(x[:, start : start + 4], (0, 0, 0, max(0, start + 4 - 11)))
        got, state = model.step(piece, (lens - start).clamp(0, 4), torch.full((2,), start == 8), state)
        for row in range(2):
            said[row] += zip(got.token_ids[row, : got.lens[row]].tolist(), got.frame[row, : got.lens[row]].tolist(), strict=True)
    for row, length in enumerate(whole.lens):
        assert said[row] == list(zip(whole.token_ids[row, :length].tolist(), whole.frame[row, :length].tolist(), strict=True))


def test_refuses_an_answer_after_the_last_input_and_a_stream_beyond_the_capacity() -> None:
    model = build(decoder=LlamaDecoder(BLANK + 1, dim=DIM, layers=2, heads=2, window=0, capacity=6))
    said = Responses(torch.tensor([1]), torch.tensor([0]))
    for at, message in (
        ([3], "an answer at input 3 of 3, which are counted from 0"),
        ([-1], "an answer at input -1 of 3, which are counted from 0"),
        ([2, 1], r"its answers are at inputs \[2, 1\], not in the order of the inputs: sort them"),
    ):
        with pytest.raises(InputError, match=f"^stream 1: {message}$"):
            model.lay_out([said, Responses(torch.tensor([1] * len(at)), torch.tensor(at))], torch.tensor([3, 3]))
    with pytest.raises(InputError, match="capacity of 6 positions"):
        model.respond(streams(1, 7), torch.tensor([7]))


def test_imports_no_speech() -> None:
    used = "reallm.systems.reallm, reallm.decoders.llama, reallm.interleavers.blank, reallm.searchers.greedy, reallm.searchers.beam"
    loaded = subprocess.run([sys.executable, "-c", f"import sys, {used}; print(*sys.modules)"], capture_output=True, text=True, check=True)
    speech = ("reallm.frontends", "reallm.encoders", "reallm.adapters", "reallm.aligners", "reallm.data", "reallm.tokenizers")
    speech += ("reallm.systems.speech_reallm", "reallm.streaming.recognizer", "soundfile", "torchaudio", "lhotse")
    assert [name for name in loaded.stdout.split() if name.startswith(speech)] == []


@torch.no_grad()
@pytest.mark.parametrize("interleaver", [BlankInterleaver, BlankFedInterleaver])
def test_a_weight_of_blank_is_that_of_its_positions(interleaver: Any) -> None:
    plain = build(interleaver=interleaver)
    x, lens = streams(2, 6), torch.tensor([6, 4])
    laid_out = plain.lay_out(
        [Responses(torch.tensor([1, 3, 1]), torch.tensor([1, 1, 5])), Responses(torch.tensor([2]), torch.tensor([3]))], lens
    )
    loss, stats = plain.loss(x, laid_out)
    asked, blank = laid_out.targets != -100, laid_out.targets == BLANK
    logits = plain.decoder.forward(plain.inputs(x, laid_out), laid_out.lens).float()
    losses = -logits.log_softmax(-1).gather(2, laid_out.targets.clamp(min=0).unsqueeze(2)).squeeze(2)
    assert (int(blank.sum()), int(asked.sum())) == (10, 14)
    for weight in (0.25, 1.0, 3.0):
        model = replace(plain, blank_weight=weight)
        weighed, numbers = model.loss(x, laid_out)
        expected = (weight * losses[blank].sum() + losses[asked & ~blank].sum()) / (weight * 10 + 4)
        torch.testing.assert_close(weighed, expected)
        assert float(numbers["targets"]) == weight * 10 + 4, "batches weigh as their positions do"
        assert {**numbers, "targets": 0} == {**stats, "targets": 0}
        if weight == 1:
            cross_entropy = torch.nn.functional.cross_entropy(logits.transpose(1, 2), laid_out.targets, reduction="none")
            assert torch.equal(weighed, loss) and torch.equal(loss, cross_entropy.sum() / asked.sum()), "to the bit"


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none(weight: float) -> None:
    with pytest.raises(InputError, match=rf"^blank_weight {weight} is not possible: a number above 0"):
        replace(build(), blank_weight=weight)
    with pytest.raises(InputError, match=rf"^blank_weight {weight} is not possible"):
        SpeechReaLLM(**{**spec_of(SpeechReaLLM.tiny()).kwargs, "blank_weight": weight})
