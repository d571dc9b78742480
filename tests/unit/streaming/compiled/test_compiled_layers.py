"""Compiled layers: the results of the layers that they were made from, row by row, whatever the other rows do."""

import copy
import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reallm.bundle import export, load, published
from reallm.decoders.llama import LlamaDecoder, LlamaState
from reallm.encoders.conformer import ConformerEncoder
from reallm.errors import InputError
from reallm.layers.chunk_layout import step_layout
from reallm.layers.int8_linear import Int8Linear, with_int8_weights
from reallm.registry import find
from reallm.streaming.compiled import library
from reallm.streaming.compiled.linear import PackedLinear
from reallm.streaming.compiled.llama import CompiledLlamaDecoder
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.engine import Engine
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.state import select, stack, tensors
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies.spoken_digits import two_pauses

NEAR = 2e-5  # of float32 numbers that are summed in another order, as a share of the greatest


def near(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((got - expected).abs().max()) <= NEAR * float(expected.abs().max().clamp(min=1))


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def same_to_the_bit(packed: PackedLinear, x: torch.Tensor) -> None:
    """What a row gets, whatever the others are and however many."""
    together = packed(x)
    for rows in (1, 2, 7, 15):
        for row in range(0, len(x), rows):
            assert torch.equal(packed(x[row : row + rows]), together[row : row + rows]), f"rows {row} to {row + rows}"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(37, 85), (16, 64), (1, 1), (50, 130)])
@torch.inference_mode()
def test_packed_linear(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(*size, bias=bias)
    packed = PackedLinear(linear)
    x = torch.randn(8, 5, size[0])
    assert near(packed(x), linear(x)) and packed(x).shape == linear(x).shape
    assert packed(x[:0]).shape == (0, 5, size[1])
    same_to_the_bit(packed, x.flatten(0, 1))
    assert torch.equal(packed(x.transpose(0, 1)), packed(x).transpose(0, 1)), "of any strides"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(37, 85), (16, 64), (1, 1), (50, 130), (1376, 20)])
@torch.inference_mode()
def test_packed_int8_linear(size: tuple[int, int], bias: bool) -> None:
    """As Int8Linear, but for a number half-way between two integers, of which there is none here: it may go to the other one."""
    torch.manual_seed(0)
    linear = Int8Linear(nn.Linear(*size, bias=bias))
    packed = PackedLinear(linear)
    x = torch.randn(15, size[0]) * torch.logspace(-3, 3, 15).unsqueeze(1)
    x[4], x[7, 0] = 0, 1e4  # of the others nothing is left
    expected, together = linear(x), packed(x)
    torch.testing.assert_close(together, expected, rtol=2e-6, atol=1e-6 * float(expected.abs().max()))
    assert torch.equal(together[4], expected[4])
    for rows in (1, 2, 7):
        for row in range(0, 15, rows):
            assert torch.equal(packed(x[row : row + rows]), together[row : row + rows])
    x[3, -1] = torch.nan
    spoilt = packed(x)
    assert bool(spoilt[3].isnan().all())
    assert torch.equal(torch.cat([spoilt[:3], spoilt[4:]]), torch.cat([together[:3], together[4:]]))


CONFORMER = {"input_dim": 8, "dim": 16, "layers": 2, "heads": 2, "hidden": 24, "kernel": 3, "chunk_size": 4, "left": 5, "right": 2}
LLAMA = {"vocab_size": 11, "dim": 16, "layers": 2, "heads": 4, "kv_heads": 2, "window": 5}
CONFORMERS: dict[str, dict[str, Any]] = {
    "look-ahead": {},
    "none": {"right": 0},
    "chunk convolution": {"convolution": "chunk", "kernel": 5},
    "no context": {"left": 0, "right": 0, "kernel": 1},
    "wide": {"dim": 72, "heads": 4, "hidden": 90, "left": 20, "chunk_size": 8},
}


@pytest.mark.parametrize("sizes", CONFORMERS.values(), ids=CONFORMERS)
@torch.inference_mode()
def test_conformer(sizes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = ConformerEncoder(**{**CONFORMER, **sizes}).eval()
    compiled = with_compiled_layers(copy.deepcopy(plain))
    frames, batch = plain.chunk.size * 4, 3
    states = plain.init_state(batch), compiled.init_state(batch)
    alone = [compiled.init_state(1) for _ in range(batch)]
    for number in range(6):
        feats, lens = torch.randn(batch, frames, 8), torch.tensor([frames, frames * (number % 2), frames])
        final = torch.tensor([False, False, number == 5])
        (enc, enc_lens, first), (got, got_lens, second) = (
            part.step(feats, lens, final, state) for part, state in zip((plain, compiled), states, strict=True)
        )
        assert near(got, enc) and torch.equal(got_lens, enc_lens)
        assert all(near(b.float(), a.float()) for a, b in zip(tensors(first), tensors(second), strict=True) if a.numel())
        states = first, second
        for row in range(batch):
            own = slice(row, row + 1)
            one, _, alone[row] = compiled.step(feats[own], lens[own], final[own], alone[row])
            assert torch.equal(one, got[own]), "to the bit, whatever shares the batch"
        assert equal(stack(alone), second)
    feats, lens = torch.randn(2, 5 * frames + 3, 8), torch.tensor([5 * frames + 3, frames])
    for chunk in (None, plain.chunk):
        assert near(compiled(feats, lens, chunk)[0], plain(feats, lens, chunk)[0]), "in parallel, by the packed linear layers"


@pytest.mark.parametrize("sizes", [{}, {"window": 0, "capacity": 40}, {"dim": 72, "heads": 2, "kv_heads": 1, "window": 20}], ids=str)
@torch.inference_mode()
def test_llama(sizes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = LlamaDecoder(**{**LLAMA, **sizes}).eval()
    compiled = with_compiled_layers(copy.deepcopy(plain))
    assert type(compiled) is CompiledLlamaDecoder
    batch = 3
    states, alone = [plain.init_state(batch), compiled.init_state(batch)], [compiled.init_state(1) for _ in range(batch)]
    if plain.window:
        for state in (*states, *alone):
            state.position += 10**7  # after days
    for number in range(30):
        inputs, active = torch.randn(batch, plain.input_dim), torch.tensor([True, number % 3 > 0, number % 2 == 0])
        before = copy.deepcopy(states[1])
        (logits, states[0]), (got, states[1]) = (part.step(inputs, active, s) for part, s in zip((plain, compiled), states, strict=True))
        assert near(got[active], logits[active]) and not got[~active].any(), "who rests is left out"
        rested = [[ring[~active] for ring in tensors(state)] for state in (before, states[1])]
        assert all(map(torch.equal, *rested)) and torch.equal(states[0].position, states[1].position)
        for row in range(batch):
            one, alone[row] = compiled.step(inputs[row : row + 1], active[row : row + 1], alone[row])
            assert torch.equal(one, got[row : row + 1]), "to the bit, whatever shares the batch"
    if plain.capacity:
        with pytest.raises(InputError, match="longer than the 40 positions"):
            for _ in range(20):
                _, states[1] = compiled.step(inputs, torch.ones(batch, dtype=torch.bool), states[1])


@pytest.mark.parametrize("sizes", [{}, {"window": 0, "capacity": 60}, {"dim": 72, "heads": 2, "kv_heads": 1, "window": 20}], ids=str)
@torch.inference_mode()
def test_llama_some_positions_at_once(sizes: dict[str, Any]) -> None:
    """From an empty ring until it has come round, of rows of different age; of some positions a few are accepted."""
    torch.manual_seed(0)
    plain = LlamaDecoder(**{**LLAMA, **sizes}).eval()
    compiled = with_compiled_layers(copy.deepcopy(plain))
    batch, most = 3, plain.window or 9
    states, alone = [plain.init_state(batch), compiled.init_state(batch)], [compiled.init_state(1) for _ in range(batch)]
    for number in range(12):
        inputs, count = torch.randn(batch, 1 + number % most, plain.input_dim), torch.tensor([0, 1, min(3, 1 + number % most)])
        before = copy.deepcopy(states[1])
        (logits, first), (got, second) = (part.extend(inputs, state) for part, state in zip((plain, compiled), states, strict=True))
        assert near(got, logits) and equal(states[1], before)
        assert all(near(b, a) for a, b in zip(tensors(first), tensors(second), strict=True))
        for row in range(batch):
            one, own = compiled.extend(inputs[row : row + 1], alone[row])
            assert torch.equal(one, got[row : row + 1]), "to the bit, whatever shares the batch"
            alone[row] = compiled.accept(own, count[row : row + 1], alone[row])
        states = [part.accept(own, count, state) for part, own, state in zip((plain, compiled), (first, second), states, strict=True)]
    assert int(states[1].position[2]) > (plain.window or 25)
    with pytest.raises(InputError, match=f"{most + 60} positions at once"):
        compiled.extend(torch.randn(batch, most + 60, plain.input_dim), states[1])


def built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Let the layers use kernels for a processor that has less."""
    built = library.load([*library.compiler(), *options], tmp_path)
    for module in ("linear", "conformer", "llama", "system"):
        monkeypatch.setattr(f"reallm.streaming.compiled.{module}.kernels", lambda: built)


X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the options of the compiler are of x86")


@X86
@pytest.mark.parametrize("without", ["-mno-avx512vnni", "-mno-avx512f"])
@torch.inference_mode()
def test_older_processors(without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = ConformerEncoder(**{**CONFORMER, "dim": 72, "heads": 2}).eval()
    decoder = LlamaDecoder(**{**LLAMA, "dim": 72, "heads": 2, "kv_heads": 1, "window": 20}).eval()
    feats, lens, final = torch.randn(2, encoder.chunk.size * 4, 8), torch.tensor([16, 12]), torch.tensor([False, True])
    inputs, active = torch.randn(2, 3, 72), torch.tensor([True, True])

    def outputs(encoder: Any, decoder: Any) -> list[torch.Tensor]:
        state = decoder.init_state(2)
        found = [encoder.step(feats, lens, final, encoder.init_state(2))[0]]
        for number in range(3):
            logits, state = decoder.step(inputs[:, number], active, state)
            found.append(logits)
        return [*found, decoder.extend(inputs, state)[0]]

    expected = outputs(encoder, decoder)
    built_for(tmp_path, monkeypatch, without)
    compiled = [with_compiled_layers(copy.deepcopy(part)) for part in (encoder, decoder)]
    assert all(map(near, outputs(*compiled), expected))
    integers = [with_int8_weights(copy.deepcopy(part)) for part in (encoder, decoder)]
    rounded, got = outputs(*integers), outputs(*(with_compiled_layers(part) for part in integers))
    assert all(float((a - b).abs().max()) < 0.02 * float(b.abs().max()) for a, b in zip(got, rounded, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(rounded, expected, strict=True))


@X86
@pytest.mark.parametrize("size", [(37, 85), (50, 130), (37, 5)])
@torch.inference_mode()
def test_a_compiler_that_takes_two_operations_for_a_short_sum(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if b"clang" in subprocess.run([*library.compiler(), "--version"], capture_output=True, check=True).stdout:
        pytest.skip("clang has no such option")
    built_for(tmp_path, monkeypatch, "--param", "avoid-fma-max-bits=512")
    torch.manual_seed(0)
    same_to_the_bit(PackedLinear(nn.Linear(*size)), torch.randn(40, size[0]))


@X86
def test_instructions_of_other_processors_compile(tmp_path: Path) -> None:
    command = [*library.compiler(), *library.FLAGS, "-mno-avx512f", "-mavxvnni", str(library.SOURCE), "-o", str(tmp_path / "kernels.so")]
    assert subprocess.run(command, check=False).returncode == 0


@torch.inference_mode()
def test_layers_that_were_packed_on_another_processor() -> None:
    packed = copy.deepcopy(PackedLinear(nn.Linear(4, 4)))
    packed.block += 16
    with pytest.raises(InputError, match="packed on another kind of processor"):
        packed(torch.randn(1, 4))


@torch.inference_mode()
def test_rows_without_a_valid_frame_come_out_as_zeros() -> None:
    torch.manual_seed(0)
    encoder = with_compiled_layers(ConformerEncoder(**CONFORMER).eval())
    spec, layer = encoder.chunk, encoder.layers[0]
    x, valid = torch.randn(3, spec.size + spec.right, 16), torch.ones(3, spec.size + spec.right, dtype=torch.bool)
    valid[1], x[1] = False, torch.nan
    context = layer.init_context(3, spec.left, "cpu", torch.float32)
    y, after = layer.step(x, context, step_layout(spec, valid, torch.zeros(3, spec.left, dtype=torch.bool))[0])
    assert not y[1].any() and not any(tensor[1].any() for tensor in tensors(after)), "nothing of it was computed"
    assert bool(y[[0, 2]].isfinite().all()) and bool(y[0].any())


@torch.inference_mode()
def test_rings_that_are_not_contiguous() -> None:
    torch.manual_seed(0)
    decoder = with_compiled_layers(LlamaDecoder(**LLAMA).eval())
    inputs, active = torch.randn(5, 2, decoder.input_dim), torch.ones(2, dtype=torch.bool)
    states = [decoder.init_state(2) for _ in range(2)]

    def strange(state: LlamaState) -> LlamaState:
        rings = (tuple(ring.transpose(2, 3).contiguous().transpose(2, 3) for ring in rings) for rings in (state.keys, state.values))
        return LlamaState(state.position, *rings)

    for one in inputs:
        states[1] = strange(states[1])
        (expected, states[0]), (got, states[1]) = (decoder.step(one, active, state) for state in states)
        assert torch.equal(got, expected)
        extension = decoder.extend(one.unsqueeze(1).expand(-1, 3, -1), states[0])[1]
        states = [decoder.accept(extension, torch.tensor([2, 1]), state) for state in (states[0], strange(states[1]))]
        assert equal(*states)


@torch.inference_mode()
def test_what_the_kernels_would_read_beyond() -> None:
    """They know no sizes but those that they are told: what does not fit is refused, and not read."""
    decoder, encoder = with_compiled_layers(LlamaDecoder(**LLAMA).eval()), with_compiled_layers(ConformerEncoder(**CONFORMER).eval())
    state = decoder.init_state(2)
    _, extension = decoder.extend(torch.zeros(2, 2, decoder.input_dim), state)
    for count in (torch.tensor([2]), torch.tensor([2, 3]), torch.tensor([2, 2, 2])):
        with pytest.raises(AssertionError):
            decoder.accept(extension, count, state)
    for wrong in (
        decoder.init_state(1),
        LlamaState(state.position, state.keys[:1], state.values),
        LlamaState(state.position[:1], state.keys, state.values),
    ):
        with pytest.raises(AssertionError):
            decoder.step(torch.zeros(2, decoder.input_dim), torch.ones(2, dtype=torch.bool), wrong)
    before, feats = encoder.init_state(2), torch.zeros(2, encoder.chunk.size * 4, 8)
    contexts = before.layers[:1], tuple(select(layer, torch.tensor([0])) for layer in before.layers)
    for wrong_ones in contexts:
        with pytest.raises(AssertionError):
            encoder.step(
                feats, torch.full((2,), feats.size(1)), torch.zeros(2, dtype=torch.bool), dataclasses.replace(before, layers=wrong_ones)
            )


@torch.inference_mode()
def test_nan_stays_in_its_row() -> None:
    system = with_compiled_layers(SpeechReaLLM.tiny().eval())
    wav, lens, final = 0.1 * torch.randn(3, system.chunk_samples), torch.full((3,), system.chunk_samples), torch.zeros(3, dtype=torch.bool)
    clean, after = system.step(wav, lens, final, system.init_state(3))
    wav[1] = torch.nan
    spoilt, spoilt_after = system.step(wav, lens, final, system.init_state(3))
    assert all(torch.equal(spoilt.token_ids[row], clean.token_ids[row]) for row in (0, 2))
    assert equal(select(spoilt_after, torch.tensor([0, 2])), select(after, torch.tensor([0, 2])))
    assert bool(spoilt_after.acoustic.encoder.layers[0].attention.keys[1].isnan().any())


@pytest.mark.parametrize("int8", [False, True])
def test_streams_say_what_they_said(int8: bool) -> None:
    plain, compiled = load(published()), load(published())
    for system in (plain, compiled) if int8 else ():
        with_int8_weights(system)
    with_compiled_layers(compiled)
    audio, found = two_pauses(), []
    for system in (plain, compiled):
        stream = Recognizer(system).stream(end_of_speech=0.8)
        stream.accept_waveform(audio, 8000)
        found.append(stream.finish())
    expected, got = found
    assert got.text == expected.text and len(got.words) > 5
    assert [(w.word, w.start, w.end, w.emitted_at) for w in got.words] == [(w.word, w.start, w.end, w.emitted_at) for w in expected.words]
    assert [w.confidence for w in got.words] == pytest.approx([w.confidence for w in expected.words], abs=0.05 if int8 else 1e-4)
    assert got.speech_ends == expected.speech_ends
    with Engine(compiled, slots=3) as engine:
        stream = engine.stream()
        stream.push(audio, 8000)
        assert stream.finish().text == expected.text


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("name", "searcher"), [("ctc", None), ("transducer", None), ("speech_reallm", "speculative_greedy")])
@torch.inference_mode()
def test_other_systems(name: str, searcher: str | None, int8: bool) -> None:
    torch.manual_seed(0)
    plain = find("system", name).tiny().eval()
    if int8:
        with_int8_weights(plain)
    if searcher is not None:
        plain.searcher = find("searcher", searcher).tiny()
    compiled = with_compiled_layers(copy.deepcopy(plain))
    assert not any(type(part) in (nn.Linear, Int8Linear) for part in compiled.modules())
    states = [plain.init_state(2), compiled.init_state(2)]
    for _ in range(5):
        wav = 0.1 * torch.randn(2, plain.chunk_samples)
        given = wav, torch.full((2,), plain.chunk_samples), torch.zeros(2, dtype=torch.bool)
        (expected, states[0]), (got, states[1]) = (s.step(*given, state) for s, state in zip((plain, compiled), states, strict=True))
        assert torch.equal(got.lens, expected.lens) and torch.equal(got.token_ids, expected.token_ids)


@torch.inference_mode()
def test_a_copy_and_weights_that_move_are_followed() -> None:
    torch.manual_seed(0)
    decoder = with_compiled_layers(LlamaDecoder.tiny().eval())
    inputs, active = torch.randn(1, 16), torch.ones(1, dtype=torch.bool)
    before, _ = decoder.step(inputs, active, decoder.init_state(1))
    other = copy.deepcopy(decoder)
    other.layers[0].attention.value.weight.zero_()
    assert torch.equal(decoder.step(inputs, active, decoder.init_state(1))[0], before)
    assert not torch.equal(other.step(inputs, active, other.init_state(1))[0], before)
    other._apply(lambda tensor: tensor.clone())
    other.layers[0].attention.value.weight.copy_(decoder.layers[0].attention.value.weight)
    assert torch.equal(other.step(inputs, active, other.init_state(1))[0], before)


@pytest.mark.parametrize("change", [with_int8_weights, with_compiled_layers])
def test_what_is_changed_is_not_exported(change: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not what a bundle holds"):
        export(change(load(published())), tmp_path / "bundle", {"training_data": "none", "license": "CC0"})
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_compiled() -> None:
    system = SpeechReaLLM.tiny()
    with pytest.raises(InputError, match="training mode"):
        with_compiled_layers(system.train())
    with pytest.raises(InputError, match="system bfloat16: they are for the CPU, in float32"):
        with_compiled_layers(copy.deepcopy(system).eval().to(torch.bfloat16))
    with pytest.raises(InputError, match="on 'meta'"):
        with_compiled_layers(nn.Linear(4, 4, device="meta").eval())
    with pytest.raises(InputError, match="a LayerNorm has no linear layers"):
        with_compiled_layers(nn.LayerNorm(4).eval())
    for change, message in ((with_compiled_layers, "has them already"), (with_int8_weights, "int8 weights come first")):
        with pytest.raises(InputError, match=message):
            change(with_compiled_layers(SpeechReaLLM.tiny().eval()))
    compiled = with_compiled_layers(system.eval()).to(torch.bfloat16)
    with pytest.raises(InputError, match="bfloat16"), torch.inference_mode():
        compiled.decoder.step(torch.randn(1, 16), torch.ones(1, dtype=torch.bool), compiled.decoder.init_state(1))
