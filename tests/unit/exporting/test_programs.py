"""Exported programs compute what PyTorch does, step by step; and a client without torch finds the same words with them."""

import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reallm.bundle import load, published
from reallm.errors import InputError
from reallm.exporting import onnx_runner
from reallm.exporting.description import surfaces
from reallm.exporting.formats import WRITERS, onnx_function, trace
from reallm.exporting.programs import DecoderProgram, PolicyProgram, Program, programs_of
from reallm.exporting.writer import export_programs, largest_difference
from reallm.layers.joiner import Joiner
from reallm.registry import catalogue, find
from reallm.streaming.recognizer import Recognizer
from reallm.systems._transducer_decoder import TransducerDecoder
from tests.dummies.command import run
from tests.dummies.spoken_digits import two_pauses

DELAYS = [0, 3]


def component(kind: str, name: str, **arguments: Any) -> Any:
    return find(kind, name)(**arguments)


def parts(frontend: str, encoder: str, **settings: Any) -> dict[str, Any]:
    made = find("encoder", encoder).tiny()
    bands = {"coefficients": made.input_dim} if frontend == "mfcc" else {"mels": made.input_dim}
    return {
        "frontend": component("frontend", frontend, sample_rate=8000, **bands, **settings),
        "encoder": made,
        "tokenizer": find("tokenizer", "character").tiny(),
    }


def sure(system: Any, layer: torch.nn.Linear) -> Any:
    """What is said depends on what is heard and was said, and does not hang on the last digit of a number."""
    with torch.no_grad():
        for name, parameter in system.named_parameters():
            if parameter.dim() > 1 and not name.startswith(("frontend.", "encoder.")):
                parameter.mul_(4)
        layer.weight.mul_(8)
    return system.eval()


def speech_reallm(frontend: str, encoder: str, adapter: str, decoder: str, interleaver: str, **arguments: Any) -> Any:
    made = parts(frontend, encoder)
    size = made["tokenizer"].vocab_size
    chosen = {"chunk_size": 2} if interleaver == "chunk_eos" else {}
    searched = arguments.pop("searcher", "greedy")
    system = component(
        "system",
        "speech_reallm",
        **made,
        adapter=component("adapter", adapter, input_dim=made["encoder"].output_dim, output_dim=12, stride=3 if encoder == "lstm" else 2),
        decoder=component("decoder", decoder, vocab_size=size + 1, dim=12, layers=2, **arguments.pop("decoder_arguments", {})),
        interleaver=component("interleaver", interleaver, blank_id=size, **chosen),
        searcher=find("searcher", searched).tiny(),
        **arguments,
    )
    return sure(system, system.decoder.output)


def transducer(frontend: str, encoder: str, predictor: str) -> Any:
    made = parts(frontend, encoder)
    made["predictor"] = component("predictor", predictor, vocab_size=made["tokenizer"].vocab_size + 1, dim=12)
    system = component("system", "transducer", **made, searcher=find("searcher", "greedy").tiny(), flush_periods=1)
    return sure(system, system.joiner.output)


def ctc(frontend: str, encoder: str, **settings: Any) -> Any:
    system = component("system", "ctc", **parts(frontend, encoder, **settings), flush_periods=1)
    return sure(system, system.output)


def causal_with_delays() -> Any:
    return speech_reallm("mfcc", "lstm", "conv", "lstm", "chunk_eos", delay=1, training_delays=DELAYS)


SYSTEMS: dict[str, tuple[Callable[[], Any], int | None]] = {
    "digits": (lambda: load(published("digits")), 1),
    "speech_reallm": (causal_with_delays, None),
    "transducer": (lambda: transducer("kaldi_fbank", "emformer", "stateless"), 1),
    "ctc": (lambda: ctc("speechbrain_fbank", "speechbrain_conformer", top_db=10.0), 1),
}
"""What is streamed by the ONNX runner, and for how many streams it is exported."""

EXPORTED = {
    "frontend": {"log_mel", "mfcc", "kaldi_fbank", "speechbrain_fbank"},
    "encoder": {"conformer", "lstm", "emformer", "speechbrain_conformer"},
    "adapter": {"stack", "conv"},
    "decoder": {"llama", "lstm", "huggingface"},
    "predictor": {"stateless", "lstm"},
    "interleaver": {"blank", "blank_fed", "chunk_eos", "delayed_stream"},
    "searcher": {"greedy", "speculative_greedy"},
    "system": {"speech_reallm", "transducer", "ctc"},
}
REFUSED = {"searcher": {"beam", "sampling"}, "system": {"aed", "decoder_only"}}


@pytest.mark.parametrize("kind", EXPORTED)
def test_every_component_is_exported_by_a_test_here_or_refused(kind: str) -> None:
    assert set(catalogue(kind)) == EXPORTED[kind] | REFUSED.get(kind, set())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    made: dict[str, tuple[Any, Path]] = {}

    def of(name: str) -> tuple[Any, Path]:
        if name not in made:
            build, streams = SYSTEMS[name]
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp("programs") / name
            system = build()
            assert export_programs(system, folder, "onnx", {"metadata": {"license": "CC0"}}, streams) < 1e-4
            made[name] = system, folder
        return made[name]

    return of


def noise(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    loudness = np.repeat(generator.uniform(0, 0.5, round(20 * seconds)), 400)
    return (loudness * generator.standard_normal(len(loudness))).astype(np.float32)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_client_without_torch_finds_the_same_words(name: str, exported: Any) -> None:
    system, folder = exported(name)
    assert {file.name for file in folder.glob("*.onnx")} == {f"{program.name}.onnx" for program in programs_of(system)}
    texts = set()
    for seed, audio in enumerate([two_pauses() if name == "digits" else noise(3, 1), noise(1.23, 2), noise(0, 3)]):
        said = Recognizer(system).stream()
        said.accept_waveform(audio, 8000)
        client, pieces = onnx_runner.Stream(folder), np.random.default_rng(seed)
        position = 0
        while position < len(audio):
            size = int(pieces.integers(1, 5000))
            client.push(audio[position : position + size])
            position += size
        wanted = said.finish()
        assert client.finish() == wanted.text
        assert client.token_ids == wanted.token_ids
        texts.add(wanted.text)
    assert len(texts) > 1


def test_a_client_chooses_its_delay(exported: Any) -> None:
    system, folder = exported("speech_reallm")
    audio, found = noise(3, 1), set()
    for delay in range(DELAYS[0], DELAYS[1] + 1):
        stream = Recognizer(system).stream(delay=delay * system.period_samples / 8000)
        stream.accept_waveform(audio, 8000)
        client = onnx_runner.Stream(folder, delay)
        client.push(audio)
        assert client.finish() == stream.finish().text
        found.add(client.text)
    assert len(found) > 1


def test_the_runner_is_a_script_that_needs_no_torch(exported: Any, tmp_path: Path) -> None:
    _, folder = exported("digits")
    with wave.open(str(tmp_path / "said.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((two_pauses() * 32767).astype(np.int16).tobytes())
    hidden = "import sys, runpy; sys.modules.update(torch=None, reallm=None); del sys.argv[0]; runpy.run_path(sys.argv[0], {}, '__main__')"
    command = [sys.executable, "-c", hidden, onnx_runner.__file__, str(folder), str(tmp_path / "said.wav")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    client = onnx_runner.Stream(folder)
    client.push(two_pauses())
    assert printed.splitlines()[-1] == client.finish() != ""


def test_programs_of_torch_export_from_disk(tmp_path: Path) -> None:
    """Look-ahead and grouped keys; rows of several ages, of which some rest, end and begin anew."""
    torch.manual_seed(0)
    arguments = {"heads": 2, "kv_heads": 1, "window": 5}
    system = speech_reallm("log_mel", "conformer", "stack", "llama", "delayed_stream", decoder_arguments=arguments)
    assert system.encoder.chunk.right
    assert export_programs(system, tmp_path / "programs", "torch_export", {}, streams=5) < 1e-5
    for program in programs_of(system):
        loaded = torch.export.load(tmp_path / "programs" / f"{program.name}.pt2").module()
        assert largest_difference(program, loaded, 5, steps=12) < 1e-5, program.name


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_programs_for_any_number_of_streams(rows: int, exported: Any) -> None:
    system, folder = exported("speech_reallm")
    for program in programs_of(system):
        run = onnx_function(folder / f"{program.name}.onnx")
        assert largest_difference(program, run, rows, steps=12) < 1e-4, program.name


def small(kind: str, name: str) -> Program:
    made = find(kind, name).tiny()
    if kind == "interleaver":
        return PolicyProgram(made)
    if kind == "decoder":
        return DecoderProgram(made.eval(), made)
    joiner = Joiner(4, made.output_dim, 6, made.vocab_size)
    with torch.no_grad():
        return DecoderProgram(TransducerDecoder(made.eval(), joiner), made, joiner)


SMALL = [(kind, name) for kind in ("decoder", "predictor", "interleaver") for name in sorted(EXPORTED[kind])]


@pytest.mark.parametrize(("kind", "name"), SMALL)
def test_every_decoder_predictor_and_interleaver_in_both_formats(kind: str, name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = small(kind, name)
    inputs = {**program.example(3, torch.Generator().manual_seed(0)), **program.initial(3)}
    traced = trace(program, inputs, 3)
    for suffix, write in WRITERS.values():
        written = write(traced, tmp_path / f"program{suffix}", inputs, program(inputs))
        assert largest_difference(program, written, 3, steps=12) < 1e-5


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    for name in REFUSED["system"]:
        with pytest.raises(InputError, match=f"system '{name}' has no steps to export"):
            programs_of(find("system", name).tiny())
    arguments = ("log_mel", "lstm", "stack")
    for name in REFUSED["searcher"]:
        with pytest.raises(InputError, match=f"searcher '{name}'"):
            programs_of(speech_reallm(*arguments, "lstm", "blank", searcher=name))
    full = {"heads": 2, "window": 0, "capacity": 50}
    with pytest.raises(InputError, match="end after 50 positions"):
        programs_of(speech_reallm(*arguments, "llama", "blank", decoder_arguments=full))
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="holds no programs"):
        export_programs(ctc("log_mel", "lstm"), tmp_path, "onnx", {})


class Counting(Program):
    """Of a plugin whose step looks at its numbers."""

    def example(self, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(batch, 2, generator=generator)}

    def step(self, inputs: dict[str, torch.Tensor], state: Any) -> Any:
        return {"y": inputs["x"] if bool(inputs["x"].sum() > 0) else -inputs["x"]}, state


def test_a_step_with_branches_is_refused() -> None:
    program = Counting("encoder", find("interleaver", "blank").tiny().init_policy(1))
    inputs = {**program.example(3, torch.Generator()), **program.initial(3)}
    with pytest.raises(InputError, match="the encoder step cannot be exported"):
        trace(program, inputs, None)
    assert largest_difference(program, lambda given: {**program(given), "y": given["x"] + 1e-3}, 2) > 5e-4


def test_the_description_holds_what_a_client_needs(exported: Any) -> None:
    _, folder = exported("speech_reallm")
    about = json.loads((folder / "programs.json").read_text())
    assert about["metadata"] == {"license": "CC0"}
    assert about["delay"] == {"default": 1, "least": 0, "most": 3}
    assert about["flush"] == {"periods": 3, "multiple": 2}
    encoder, policy = about["programs"]["encoder"], about["programs"]["policy"]
    assert [(one["name"], one["dtype"]) for one in encoder["inputs"]] == [
        ("wav", "float32"), ("lens", "int64"), ("final", "bool"), ("delay", "int64"),
    ]  # fmt: skip
    assert encoder["inputs"][0]["shape"] == ["B", about["chunk_samples"]]
    assert {one["name"]: one["initial"] for one in policy["states"]} == {"token_ids": -1, "wants_audio": True, "heard": 0}


@pytest.mark.parametrize("name", sorted(catalogue("tokenizer")))
def test_surfaces_joined_are_the_text(name: str) -> None:
    tokenizer = find("tokenizer", name).tiny()
    pieces = [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in surfaces(tokenizer)]
    generator = np.random.default_rng(0)
    for _ in range(20):
        token_ids = generator.integers(tokenizer.vocab_size, size=6).tolist()
        joined = b"".join(pieces[token_id] for token_id in token_ids).decode(errors="replace")
        assert joined.replace("\ufffd", "").strip(" ") == tokenizer.decode(token_ids).replace("\ufffd", "").strip(" ")


def test_the_command_writes_programs_of_a_bundle(tmp_path: Path, capsys: Any) -> None:
    from reallm.bundle import export

    torch.manual_seed(0)
    export(ctc("log_mel", "lstm"), tmp_path / "exp" / "bundle", {"training_data": "noise", "license": "CC0"})
    out = ("--out", tmp_path / "programs")
    assert run("export", tmp_path / "exp", *out, "--format", "torch_export", "--streams", 2) == 0
    assert "encoder.pt2" in capsys.readouterr().out
    about = json.loads((tmp_path / "programs" / "programs.json").read_text())
    assert about["metadata"]["license"] == "CC0" and about["streams"] == 2
    assert run("export", tmp_path / "exp", *out, "--format", "onnx", "--license", "CC0") == 2
    assert "--license is for bundles" in capsys.readouterr().err
    assert run("export", tmp_path / "exp", *out, "--streams", 2) == 2
    assert "--streams is for programs" in capsys.readouterr().err
