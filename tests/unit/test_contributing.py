"""The examples of CONTRIBUTING.md are real components: each is run and held against its contract."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm import protocols, registry
from reallm.encoders.speechbrain_conformer import SpeechBrainConformerEncoder
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend
from reallm.systems.aed import AED
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.initialize import stored_weights, take_weights
from reallm.types import Alignment, Batch
from tests.dummies.speechbrain_checkpoint import SIZES, Published

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"^### (\w+)\n.*?^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tiny one of the component that the example of this kind registers; unknown again afterwards."""
    kind = request.param
    before = dict(registry._components)
    for known in registry.catalogue(kind):
        before[kind, known] = registry._components[kind, known]
    scope: dict[str, Any] = {"__name__": f"example_{kind}"}
    exec(compile(EXAMPLES[kind], f"CONTRIBUTING.md, {kind}", "exec"), scope)
    added = registry._components.keys() - before.keys()
    assert len(added) == 1, f"the example must register one {kind}"
    torch.manual_seed(0)
    yield registry._components[added.pop()].tiny()  # type: ignore[attr-defined]
    registry._components.clear()
    registry._components.update(before)


def test_every_kind_has_an_example() -> None:
    assert list(EXAMPLES) == list(registry.KINDS)


@pytest.mark.parametrize("example", registry.KINDS, indirect=True)
def test_it_fulfils_the_protocol(example: Any) -> None:
    spec = registry.spec_of(example)
    assert isinstance(example, getattr(protocols, spec.kind.capitalize()))
    assert type(example).__doc__


@pytest.mark.parametrize("example", ["frontend", "encoder", "adapter"], indirect=True)
def test_it_streams_as_it_trains(example: Any) -> None:
    component = example.double().eval()
    chunk = {"frontend": 160, "encoder": 12, "adapter": 4}[component.component_kind]
    lens = torch.tensor([5 * chunk, 3 * chunk + 1])
    shape = (2, 5 * chunk) if component.component_kind == "frontend" else (2, 5 * chunk, component.input_dim)
    x = torch.randn(shape, dtype=torch.float64)
    offline, offline_lens = component.forward(x, lens)
    state = component.init_state(2, dtype=torch.float64)
    rows: list[list[torch.Tensor]] = [[], []]
    for start in range(0, 5 * chunk, chunk):
        valid = (lens - start).clamp(0, chunk)
        out, out_lens, state = component.step(x[:, start : start + chunk], valid, lens <= start + chunk, state)
        for row in range(2):
            rows[row].append(out[row, : out_lens[row]])
    for row in range(2):
        torch.testing.assert_close(torch.cat(rows[row]), offline[row, : offline_lens[row]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("example", ["decoder", "predictor"], indirect=True)
def test_the_decoder_steps_as_it_trains(example: Any) -> None:
    decoder = example.double().eval()
    inputs = torch.randn(2, 6, decoder.input_dim, dtype=torch.float64)
    offline = decoder.forward(inputs, torch.tensor([6, 6]))
    state = decoder.init_state(2, dtype=torch.float64)
    at = torch.zeros(2, dtype=torch.int64)
    # The second row rests in every other round.
    for turn in range(11):
        active = torch.tensor([at[0] < 6, turn % 2 == 0 and at[1] < 6])
        logits, state = decoder.step(inputs[torch.arange(2), at.clamp(max=5)], active, state)
        for row in range(2):
            if active[row]:
                torch.testing.assert_close(logits[row], offline[row, at[row]], rtol=0, atol=1e-9)
        at = at + active
    assert at.tolist() == [6, 6]


@pytest.mark.parametrize("example", ["aligner"], indirect=True)
def test_the_aligner_covers_the_utterance(example: Any) -> None:
    class Teacher:
        sample_rate = 8000

    batch = Batch(["a", "b"], torch.zeros(2, 10), torch.tensor([10, 7]), ["x y z", ""])
    good, bad = example.align(batch, [torch.tensor([1, 2, 3]), torch.tensor([], dtype=torch.int64)], Teacher())
    assert (good.start_samples.tolist(), good.end_samples.tolist()) == ([0, 3, 6], [3, 6, 10])
    assert bad == protocols.AlignmentFailure("empty transcript")


@pytest.mark.parametrize("example", ["interleaver"], indirect=True)
def test_the_interleaver_waits_one_period_more(example: Any) -> None:
    alignment = Alignment(torch.tensor([3]), torch.tensor([0]), torch.tensor([80]), torch.zeros(1).double(), 8000)
    built = example.build([alignment], torch.tensor([3]), torch.tensor([0]), 80)
    assert built.targets.tolist() == [[10, 3, 10, 10]]


@pytest.mark.parametrize("example", ["searcher"], indirect=True)
def test_the_searcher_answers_only_when_it_is_sure(example: Any) -> None:
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3]]).log()
    assert example.choose(scores, 2, torch.zeros(2)).tolist() == [0, 2]


@pytest.mark.parametrize("example", ["tokenizer"], indirect=True)
def test_the_tokenizer_decodes_token_by_token(example: Any) -> None:
    state, text = protocols.TextState(), ""
    for token in example.encode(" größer  als 日本 "):
        piece, state = example.decode_step(token, state)
        text += piece
    assert text == "größer als 日本" == example.decode(example.encode(text))


@pytest.mark.parametrize("example", ["system"], indirect=True)
def test_the_system_has_a_loss(example: Any) -> None:
    batch = Batch(["a"], 0.1 * torch.randn(1, 8000), torch.tensor([8000]), ["the fox"])
    loss, _ = example.train().loss(batch)
    loss.backward()
    assert torch.isfinite(loss)


def run_example(heading: str) -> dict[str, Any]:
    """What the example below a heading defines."""
    example = re.search(rf"^## {heading}\n.*?^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert example is not None
    scope: dict[str, Any] = {}
    exec(compile(example[1], f"CONTRIBUTING.md, {heading}", "exec"), scope)
    return scope


def test_the_general_model_answers_each_input(capsys: pytest.CaptureFixture[str]) -> None:
    run_example("A stream of anything")
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_a_training_begins_with_published_weights(tmp_path: Path) -> None:
    published = Published(tmp_path / "published", sample_rate=16000, mels=80, fft=512)
    tokenizer, encoder = CharacterTokenizer.tiny(tmp_path), SpeechBrainConformerEncoder(**SIZES)
    run_example("Weights that SpeechBrain published")["begin_with"](published.folder, tokenizer, tmp_path / "bundle", **SIZES)
    system = AED(SpeechBrainFbankFrontend(), encoder, tokenizer, decoder_dim=16, decoder_layers=1, decoder_heads=2, decoder_hidden=16)
    taken = take_weights(system, stored_weights(tmp_path / "bundle"))
    assert taken.has_all_of("encoder") and taken.has_all_of("frontend") and not taken.unlike()
    theirs = published.encoder.transformer.encoder.layers[1].state_dict()
    ours = encoder.layers[1].get_submodule("layer").state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
