"""A model in bfloat16: it hears in float32, and its streams are as independent as ever."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reallm.contract.component import tiny
from reallm.contract.system import training_batch
from reallm.frontends.framing import FramedFrontend
from reallm.registry import catalogue, find
from reallm.streaming.engine import Engine
from reallm.streaming.engine_stream import EngineStream
from reallm.streaming.offline import recognizer_for
from reallm.streaming.recognizer import Recognizer, parameter_of
from reallm.streaming.resampler import Audio
from reallm.streaming.state import tensors
from reallm.systems.ctc import CTC
from tests.dummies.engine_systems import SYSTEMS, noise, talkative_system


def bfloat16_system(which: str) -> Any:
    return talkative_system(which).to(torch.bfloat16)


def spoken(stream: EngineStream, audio: Audio) -> list[tuple[list[int], float]]:
    """Tokens, and the sum of their log-probabilities, after each piece and at the end."""
    found = []
    for begin in range(0, len(audio), 700):
        stream.push(audio[begin : begin + 700], 8000)
        stream._engine.step()
        found.append(stream.result())
    return [(one.token_ids, one.score) for one in [*found, stream.finish()]]


@pytest.mark.parametrize("which", SYSTEMS)
def test_an_engine_speaks_as_a_recognizer_does(which: str) -> None:
    system, audio = bfloat16_system(which), noise(7, 9000)
    stream = Engine(system, slots=3).stream()
    stream.push(audio, 8000)
    alone = Recognizer(system, max_streams=3).stream()
    alone.accept_waveform(audio, 8000)
    text = stream.finish().text
    assert text and text == alone.finish().text


@pytest.mark.parametrize("which", SYSTEMS)
def test_a_row_is_equal_to_the_bit_with_and_without_neighbours(which: str) -> None:
    system, audio = bfloat16_system(which), noise(7, 9000)
    quiet = spoken(Engine(system, slots=4).stream(), audio)
    engine = Engine(system, slots=4)
    stream = engine.stream()
    for number in range(3):
        engine.stream().push(5.0 * noise(number, 9000), 8000)
    assert spoken(stream, audio) == quiet and quiet[-1][0]


@pytest.mark.parametrize("name", catalogue("encoder"))
def test_every_encoder_takes_features_of_its_type(name: str) -> None:
    encoder: Any = tiny(find("encoder", name)).float()
    frontend = find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim)
    system = CTC(frontend, encoder, find("tokenizer", "character").tiny()).to(torch.bfloat16).eval()
    stream = Engine(system, slots=2).stream()
    stream.push(noise(0, 4000), 8000)
    assert stream.finish().is_final and stream.error is None


@pytest.mark.parametrize("name", catalogue("system"))
def test_audio_and_features_stay_float32_and_all_else_is_bfloat16(name: str) -> None:
    system: Any = tiny(find("system", name)).float()
    exact = {key: value.clone() for key, value in system.frontend.named_buffers()}
    system = system.to(torch.bfloat16)
    kept = dict(system.frontend.named_buffers())
    assert all(torch.equal(kept[key], value) for key, value in exact.items())
    assert {parameter.dtype for parameter in system.parameters()} == {torch.bfloat16}
    batch = training_batch(system)
    batch.wav = batch.wav.float()
    loss, _ = system.train().loss(batch)
    loss.backward()
    assert bool(loss.isfinite())
    system.eval()
    stream = recognizer_for(system).stream()
    stream.accept_waveform(noise(0, 4000), 8000)
    assert stream.finish().is_final
    if hasattr(system, "init_state"):
        state = system.init_state(2, "cpu", torch.bfloat16)
        assert {tensor.dtype for tensor in tensors(state.acoustic.frontend)} == {torch.float32}
        assert torch.bfloat16 in {tensor.dtype for tensor in tensors(state.acoustic.encoder)}


class LearnedFrontend(FramedFrontend):
    """A linear map of each frame."""

    def __init__(self, mels: int) -> None:
        super().__init__(8000, window_ms=25.0, shift_ms=10.0, output_dim=mels)
        self.linear = nn.Linear(self.window_samples, mels)
        self.heard: set[torch.dtype] = set()

    def analyse(self, frames: Tensor) -> Tensor:
        self.heard.add(frames.dtype)
        return self.linear(frames)


def test_a_frontend_that_learns_stays_float32_and_does_not_decide_for_the_others() -> None:
    encoder: Any = tiny(find("encoder", "conformer")).float()
    frontend = LearnedFrontend(encoder.input_dim)
    system = CTC(frontend, encoder, find("tokenizer", "character").tiny()).eval()
    frontend.linear(torch.zeros(1, frontend.window_samples)).sum().backward()
    system = system.half().to(torch.bfloat16)
    assert frontend.linear.weight.dtype == torch.float32 and next(encoder.parameters()).dtype == torch.bfloat16
    assert frontend.linear.weight.grad is not None and frontend.linear.weight.grad.dtype == torch.float32
    stream = Engine(system, slots=2).stream()
    stream.push(noise(0, 4000), 8000)
    assert stream.finish().is_final and frontend.heard == {torch.float32}
    assert system.double().frontend.mean.dtype == torch.float64


def test_the_type_is_the_encoders_or_another_parts_and_the_frontends_last() -> None:
    parts = {"frontend": nn.Linear(1, 1), "head": nn.Linear(1, 2).bfloat16(), "encoder": nn.Linear(1, 3).bfloat16()}

    def found(**others: nn.Module) -> torch.Tensor:
        system: Any = nn.ModuleDict({**parts, **others})
        return parameter_of(system)

    nothing = nn.Identity()
    assert found() is parts["encoder"].weight and found(encoder=nothing) is parts["head"].weight
    assert found(encoder=nothing, head=nothing) is parts["frontend"].weight
    assert found(encoder=nothing, head=nothing, frontend=nothing).numel() == 0


def test_what_is_heard_is_what_a_float32_model_hears() -> None:
    exact, rounded = (talkative_system("speech_reallm") for _ in range(2))
    rounded.to(torch.bfloat16)
    heard: dict[Any, list[np.ndarray[Any, Any]]] = {exact: [], rounded: []}
    for system, found in heard.items():
        step = system.frontend.step

        def spy(*args: Any, step: Any = step, found: Any = found) -> Any:
            after = step(*args)
            found.append(after[0].numpy())
            return after

        system.frontend.step = spy
        stream = Engine(system, slots=2).stream()
        stream.push(noise(1, 5000), 8000)
        stream.finish()
    for one, other in zip(*heard.values(), strict=True):
        assert one.dtype == np.float32 and np.array_equal(one, other)
