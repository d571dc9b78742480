"""Own answers fed in training: against a decoder that takes one position at a time, and that all else stays as it was."""

import functools
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reallm.decoders.huggingface import HuggingFaceDecoder
from reallm.decoders.llama import LlamaDecoder
from reallm.decoders.lstm import LSTMDecoder
from reallm.errors import InputError
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.interleavers.delayed_stream import DelayedStreamInterleaver
from reallm.registry import spec_of
from reallm.searchers.greedy import GreedySearcher
from reallm.systems._scheduled_sampling import with_own_answers
from reallm.systems.reallm import ReaLLM, Responses
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.training.schedules import WarmupCosine
from reallm.training.settings import TrainingSettings
from reallm.training.trainer import train
from reallm.types import Alignment, Batch, Interleaved

BLANK = 10
INTERLEAVERS = [BlankInterleaver(BLANK), BlankFedInterleaver(BLANK), ChunkEosInterleaver(BLANK, 3), DelayedStreamInterleaver(BLANK)]
INTERLEAVINGS = pytest.mark.parametrize("interleaver", INTERLEAVERS, ids=lambda each: each.component_name)


def model_of(interleaver: Any, decoder: Any = None, blank: float = 0.0) -> ReaLLM:
    """Its answers hang on the inputs; ``blank`` is added to the logit of BLANK."""
    torch.manual_seed(1)
    decoder = decoder or LlamaDecoder(BLANK + 1, dim=16, layers=2, heads=2, window=6)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    forward = decoder.forward
    decoder.forward = lambda *inputs: forward(*inputs) + blank * (torch.arange(BLANK + 1) == BLANK)
    return ReaLLM(decoder.train(), interleaver, GreedySearcher())


def laid_out_of(model: ReaLLM, rows: int = 3) -> tuple[Tensor, Interleaved]:
    """Embeddings of ``rows`` streams of 12 inputs or fewer, with five answers each; several to one input."""
    rng = torch.Generator().manual_seed(2)
    lens = 12 - torch.arange(rows) % 4
    said = [Responses(torch.randint(BLANK, (5,), generator=rng), torch.tensor([0, 3, 3, 4, 6])) for _ in range(rows)]
    return torch.randn(rows, 12, model.decoder.input_dim, generator=rng), model.lay_out(said, lens)


def step_by_step(model: ReaLLM, embeddings: Tensor, laid_out: Interleaved) -> Tensor:
    """What is fed where each answer is the model's own, given true ones before: of all answers, from the most probable on, the first after
    which the run-time policy stands where the true one leads it, whatever token it feeds."""
    fed = laid_out.token_ids.clone()
    for row, length in enumerate(laid_out.lens.tolist()):
        heard, active = 0, torch.tensor([True])
        state: Any = model.decoder.init_state(1, dtype=embeddings.dtype)
        policy: Any = model.interleaver.init_policy(1)
        for position in range(length):
            assert int(policy.token_ids) == int(laid_out.token_ids[row, position])
            x = torch.zeros(1, embeddings.size(2))
            if policy.token_ids >= 0:
                x = x + model.decoder.embed(policy.token_ids)
            if policy.wants_audio:
                x, heard = x + embeddings[row, heard], heard + 1
            logits, state = model.decoder.step(x, active, state)
            true = laid_out.targets[row, position : position + 1]
            _, after = model.interleaver.advance(torch.where(true == -100, 0, true), active, policy)
            if position + 1 < length and true != -100:
                for answer in logits.argsort(descending=True)[0]:
                    _, other = model.interleaver.advance(answer.view(1), active, policy)
                    if place(other) == place(after):
                        fed[row, position + 1] = other.token_ids
                        break
            policy = after
    return fed


def place(policy: Any) -> list[int]:
    """All of a policy's state but which token it feeds."""
    return [int(getattr(policy, f.name)) for f in fields(policy) if f.name != "token_ids"] + [int(policy.token_ids >= 0)]


def tiny_llm() -> HuggingFaceDecoder:
    """One that cannot embed BLANK, and computes its layers twice."""
    kwargs = spec_of(HuggingFaceDecoder.tiny()).kwargs
    return HuggingFaceDecoder(**{**kwargs, "blank_input": False, "gradient_checkpointing": True})


@INTERLEAVINGS
@pytest.mark.parametrize("decoder", [None, LSTMDecoder(BLANK + 1, 16)], ids=["llama", "lstm"])
def test_with_probability_one_every_answer_is_the_own_one(interleaver: Any, decoder: Any) -> None:
    model = model_of(interleaver, decoder)
    embeddings, laid_out = laid_out_of(model)
    fed = with_own_answers(model, embeddings, laid_out, 1.0)
    with torch.no_grad():
        assert torch.equal(fed.token_ids, step_by_step(model, embeddings, laid_out))
    differ = fed.token_ids != laid_out.token_ids
    assert int(differ.sum()) > 8, "answers of an untrained model"
    assert fed.targets is laid_out.targets and fed.audio_index is laid_out.audio_index and fed.lens is laid_out.lens


@INTERLEAVINGS
def test_where_a_token_is_due_blank_is_fed_only_where_it_is_one_answer_as_any_other(interleaver: Any) -> None:
    model = model_of(interleaver, blank=1000.0)
    embeddings, laid_out = laid_out_of(model)
    fed, text = with_own_answers(model, embeddings, laid_out, 1.0).token_ids, (laid_out.token_ids >= 0) & (laid_out.token_ids != BLANK)
    assert int(text.sum()) == 15
    if interleaver.component_name == "delayed_stream":
        assert bool((fed[laid_out.token_ids >= 0] == BLANK).all())
    else:
        assert bool((fed[text] != BLANK).all()) and not torch.equal(fed, laid_out.token_ids)
        assert torch.equal(fed[~text], laid_out.token_ids[~text])
        silent = with_own_answers(model_of(interleaver, blank=-1000.0), embeddings, laid_out, 1.0).token_ids
        assert torch.equal(fed, silent), "the most probable token is the same, however probable BLANK is"


def test_a_pretrained_llm_that_cannot_read_blank() -> None:
    model = model_of(BlankInterleaver(BLANK), tiny_llm(), blank=1000.0)
    embeddings, laid_out = laid_out_of(model)
    fed = with_own_answers(model, embeddings, laid_out, 1.0)
    assert bool((fed.token_ids < BLANK).all()) and int((fed.token_ids != laid_out.token_ids).sum()) > 8
    model.loss(embeddings, fed)[0].backward()
    decoder: Any = model.decoder
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("probability", [0.1, 0.7])
def test_each_position_is_drawn_by_itself_and_from_the_seed_alone(probability: float) -> None:
    model = model_of(BlankInterleaver(BLANK))
    embeddings, laid_out = laid_out_of(model, rows=200)
    own = with_own_answers(model, embeddings, laid_out, 1.0).token_ids

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return with_own_answers(model, embeddings, laid_out, probability).token_ids

    first, other = drawn(1), drawn(2)
    assert torch.equal(first, drawn(1)) and not torch.equal(first, other)
    could = own != laid_out.token_ids
    taken = (first == own)[could].double()
    assert bool(((first == own) | (first == laid_out.token_ids)).all())
    assert abs(float(taken.mean()) - probability) < 4 * (probability * (1 - probability) / taken.numel()) ** 0.5
    some, not_all = ((first == own) & could).any(1), ((first != own) & could).any(1)
    assert int((some & not_all).sum()) > 20, "not whole rows"


def batch_of(system: Any) -> Batch:
    rng = torch.Generator().manual_seed(0)
    ends = torch.tensor([2, 4, 4, 7]) * system.period_samples - 3
    alignments = [Alignment(torch.tensor(ids), ends - 5, ends, torch.zeros(4).double(), 8000) for ids in ([1, 2, 1, 3], [0, 4, 4, 2])]
    wav = torch.randn(2, 8 * system.period_samples, generator=rng)
    return Batch(["a", "b"], wav, torch.full((2,), wav.size(1)), ["", ""], alignments)


def system_with(interleaver: Any = BlankInterleaver, **changes: Any) -> Any:
    torch.manual_seed(0)
    tiny = SpeechReaLLM.tiny()
    kwargs = {**spec_of(tiny).kwargs, "interleaver": interleaver(tiny.tokenizer.vocab_size), **changes}
    return SpeechReaLLM(**kwargs).train()


def trained(system: Any, batch: Batch | None = None) -> tuple[Tensor, list[Tensor], Tensor]:
    """The loss, all gradients, and what is drawn next."""
    system.zero_grad()
    torch.manual_seed(5)
    loss, _ = system.loss(batch or batch_of(system))
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in system.parameters()], torch.rand(1)


def passes(system: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The decoder's passes from now on, and where autocast's cache is cleared after the first; a frontend clears it before."""
    seen: list[str] = []
    forward, clear = system.decoder.forward, torch.clear_autocast_cache

    def noting(*inputs: Tensor) -> Tensor:
        seen.append("with gradient" if torch.is_grad_enabled() else "without")
        logits: Tensor = forward(*inputs)
        assert logits.requires_grad == torch.is_grad_enabled()
        return logits

    def clearing() -> None:
        seen.extend(["cache cleared"] if seen else [])
        clear()

    monkeypatch.setattr(system.decoder, "forward", noting)
    monkeypatch.setattr(torch, "clear_autocast_cache", clearing)
    return seen


@pytest.mark.parametrize("interleaver", [BlankInterleaver, BlankFedInterleaver, ChunkEosInterleaver, DelayedStreamInterleaver])
def test_with_probability_zero_the_loss_and_what_is_drawn_are_the_same_to_the_bit(
    interleaver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, zero = system_with(interleaver), system_with(interleaver, scheduled_sampling=0.0)
    seen = passes(zero, monkeypatch)
    expected, found = trained(plain), trained(zero)
    assert seen == ["with gradient"]
    assert torch.equal(found[0], expected[0]) and torch.equal(found[2], expected[2])
    assert all(torch.equal(*pair) for pair in zip(found[1], expected[1], strict=True))
    assert not torch.equal(trained(system_with(interleaver, scheduled_sampling=1.0))[0], expected[0])


def test_the_first_pass_has_no_gradient_and_the_second_one_that_of_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_with(scheduled_sampling=0.5)
    read: list[Interleaved] = []
    of_model = ReaLLM.loss

    def noting(model: ReaLLM, embeddings: Tensor, laid_out: Interleaved) -> Any:
        read.append(laid_out)
        return of_model(model, embeddings, laid_out)

    monkeypatch.setattr(ReaLLM, "loss", noting)
    seen = passes(system, monkeypatch)
    loss, gradients, _ = trained(system)
    assert seen == ["without", "cache cleared", "with gradient"]
    plain = system_with()
    monkeypatch.setattr(ReaLLM, "loss", lambda model, embeddings, laid_out: of_model(model, embeddings, read[0]))
    expected, given, _ = trained(plain)
    assert torch.equal(loss, expected)
    assert all(torch.equal(*pair) for pair in zip(gradients, given, strict=True)), "read as if it had been in the batch"
    monkeypatch.setattr(ReaLLM, "loss", noting)
    trained(plain)
    true = read[-1]
    assert not torch.equal(read[0].token_ids, true.token_ids)
    for name in ("audio_index", "targets", "lens"):
        assert torch.equal(getattr(read[0], name), getattr(true, name)), "nothing else is changed"


def test_under_autocast_every_weight_of_the_decoder_has_a_gradient() -> None:
    system = system_with(scheduled_sampling=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = system.loss(batch_of(system))
    loss.backward()
    assert all(bool(parameter.grad.any()) for parameter in system.decoder.parameters())


def test_outside_training_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, sampling = system_with().eval(), system_with(scheduled_sampling=1.0).eval()
    seen = passes(sampling, monkeypatch)
    batch = batch_of(plain)
    expected, found = trained(plain, batch), trained(sampling, batch)
    assert seen == ["with gradient"]
    assert torch.equal(found[0], expected[0]) and torch.equal(found[2], expected[2])


def test_a_batch_in_which_nothing_is_said() -> None:
    system = system_with(scheduled_sampling=1.0)
    nothing = torch.zeros(0, dtype=torch.int64)
    none = Alignment(nothing, nothing, nothing, nothing.double(), 8000)
    batch = replace(batch_of(system), alignments=[none, none])
    assert torch.equal(trained(system, batch)[0], trained(system_with(), batch)[0])


class Stop(Exception):
    pass


class AlignedData:
    """One batch, three times an epoch; the run is killed after ``last`` of them."""

    def __init__(self, batch: Batch, last: int = 6) -> None:
        self.batch, self.left = batch, last

    def batches(self, epoch: int) -> int:
        return 3

    def loader(self, epoch: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        for _ in range(start, 3, step):
            self.left -= 1
            if self.left < 0:
                raise Stop
            yield self.batch


def test_a_run_that_was_killed_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    settings = TrainingSettings(epochs=2, optimizer=optimizer, schedule=WarmupCosine(warmup=1), checkpoint_every=1, log_every=1)

    def run(name: str, last: int = 6, probability: float = 0.5) -> dict[str, Tensor]:
        (tmp_path / name).mkdir(exist_ok=True)
        system = system_with(scheduled_sampling=probability)
        train(system, settings, AlignedData(batch_of(system), last), tmp_path / name, progressbar=False)
        weights: dict[str, Tensor] = system.state_dict()
        return weights

    whole = run("whole")
    with pytest.raises(Stop):
        run("killed", last=4)
    resumed, other = run("killed", last=2), run("other", probability=0.1)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert not all(torch.equal(other[name], value) for name, value in whole.items())


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability(probability: float) -> None:
    with pytest.raises(InputError, match=rf"^scheduled_sampling {probability} is no probability: from 0, which feeds true answers, to 1$"):
        system_with(scheduled_sampling=probability)
