"""A language model of transformers as the decoder of the digits: made by the command, trained, exported, heard."""

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm import resources
from reallm.bundle import load
from reallm.data.cuts import read_cuts, text_of, write_cuts
from reallm.registry import find
from reallm.streaming.recognizer import Recognizer
from reallm.training.experiment import load_trained, run_training
from reallm.training.journal import read_journal
from tests.dummies.command import run
from tests.dummies.data import aligned_evenly, write_corpus

ROOT = Path(__file__).parents[2]
SMALL = ["dim=32", "layers=2", "batch_seconds=8", "epochs=2", "warmup=5"]
SIZES = ["hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "num_attention_heads=4", "num_key_value_heads=2"]


def tool(name: str, *arguments: object) -> None:
    """Runs a tool in this process, which has imported what takes seconds."""
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with strings of tones that are aligned to words, and these."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), train_strings=50, epochs=1, dev_strings=4)
    cuts = list(read_cuts(folder / "train.jsonl.gz"))
    tokenizer = find("tokenizer", "word").train([text_of(cut) for cut in cuts], folder / "words.json")
    write_cuts(aligned_evenly(cuts, tokenizer), folder / "aligned.jsonl.gz")
    return folder


@pytest.mark.parametrize("lora", [pytest.param(False, id="from_random_weights"), pytest.param(True, id="with_lora")])
def test_the_digits_are_trained_exported_transcribed_and_gone_on_with(lora: bool, prepared: Path, tmp_path: Path) -> None:
    tool("llm_config.py", "llama", "--out", tmp_path / "llm", "--tokenizer", f"word={prepared / 'words.json'}", *SIZES)
    assert json.loads((tmp_path / "llm/config.json").read_text())["vocab_size"] == 10
    conf: Any = resources.path("egs/digits/conf/speech_reallm_llm.yaml")
    if lora:
        tool("llm_config.py", "llama", "--out", tmp_path / "llm", "--weights", "vocab_size=10", *SIZES)
        text = conf.read_text().replace("!include:../../../hparams", f"!include:{resources.path('hparams')}")
        options = {"weights": "!ref <llm>", "lora_rank": 4, "dtype": "bfloat16", "gradient_checkpointing": "true"}
        lines = "".join(f"\n    {key}: {value}" for key, value in options.items())
        conf = tmp_path / "lora.yaml"
        conf.write_text(text.replace("\n    window: !ref <window>", f"\n    window: !ref <window>{lines}"))
    overrides = [*SMALL, f"llm={tmp_path / 'llm'}", f"tokenizer_path={prepared / 'words.json'}"]
    overrides += [f"train={prepared / 'aligned.jsonl.gz'}", f"dev={prepared / 'dev.jsonl.gz'}"]
    exp = tmp_path / "exp"
    assert run_training(conf, exp, overrides, device="cpu", progressbar=False).updates >= 10
    losses = [line["loss"] for line in read_journal(exp) if "loss" in line]
    assert losses[-1] < losses[0]
    assert run("export", exp, "--out", exp / "bundle", "--license", "none", "--training-data", "tones", "--full-precision") == 0
    trained, loaded = load_trained(exp), load(exp / "bundle")
    shutil.rmtree(max((exp / "checkpoints").iterdir()))
    assert run_training(conf, exp, overrides, device="cpu", progressbar=False).resumed_at > 0
    again: Any = load_trained(exp)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in trained.state_dict().items())  # type: ignore[attr-defined]
    decoder: Any = loaded.decoder  # type: ignore[attr-defined]
    assert decoder.component_spec.name == "huggingface" and decoder.lora == lora
    cut = next(iter(read_cuts(prepared / "dev.jsonl.gz")))
    samples = cut.load_audio()[0]
    texts = []
    for system in (trained, loaded):
        system.searcher.blank_penalty = 3.0  # type: ignore[attr-defined]  # so short a training leaves nothing but BLANK
        recognizer: Any = Recognizer(system)
        stream = recognizer.stream()
        stream.accept_waveform(samples, cut.sampling_rate)
        texts.append(stream.finish().text)
        wav = torch.from_numpy(samples).unsqueeze(0)
        emission = system.recognize(wav, torch.tensor([wav.size(1)]))
        texts.append(system.tokenizer.decode(emission.token_ids[0, : int(emission.lens[0])].tolist()))
    assert texts[0] and len(set(texts)) == 1


def test_the_7b_configuration_trains_with_a_tiny_llm_in_its_place(prepared: Path, tmp_path: Path) -> None:
    """The very file, but for folders, sizes and processes that read: LoRA in bfloat16, layers computed twice, under its encoder of 20
    layers, which is frozen here to be quick."""
    conf, llm, exp = resources.path("egs/librispeech/conf/speech_reallm_llama2_7b.yaml"), tmp_path / "llm", tmp_path / "exp"
    tool("llm_config.py", "llama", "--out", llm, "--weights", "vocab_size=320", *SIZES)
    tokenizer = find("tokenizer", "huggingface").tiny(llm)
    cuts = [cut.resample(16000) for cut in read_cuts(prepared / "train.jsonl.gz")][:4]
    write_cuts(aligned_evenly(cuts, tokenizer), tmp_path / "train.jsonl.gz")
    write_cuts(cuts[:1], tmp_path / "dev.jsonl.gz")
    overrides = [f"llm={llm}", f"train={tmp_path / 'train.jsonl.gz'}", f"dev={tmp_path / 'dev.jsonl.gz'}"]
    overrides += ["epochs=1", "accumulate=1", "batch_seconds=60", "frozen=[encoder]", "data={num_workers: 0}"]
    assert run_training(conf, exp, overrides, device="cpu", progressbar=False).updates >= 1
    assert [line["kind"] for line in read_journal(exp)][-1] == "validation"
    trained: Any = load_trained(exp)
    moved = [name for name, weight in trained.decoder.named_parameters() if "lora_B" in name and bool(weight.any())]
    assert len(moved) == 2 * 7, "of each linear map of both layers"
    (checkpoint,) = (exp / "checkpoints").iterdir()
    assert (checkpoint / "optimizer.ckpt").stat().st_size < 5e6 < (checkpoint / "system.ckpt").stat().st_size, "the encoder is frozen"
    assert not any("embed_tokens" in name for name in trained.decoder.state_dict()), "the LLM itself is in no checkpoint"


def test_memory_is_counted_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool("llm_config.py", "llama", "--out", tmp_path, *SIZES)
    capsys.readouterr()
    tool("llm_memory.py", ROOT / "egs/digits/conf/speech_reallm_llm.yaml", "--override", f"llm={tmp_path}", "--utterance", 4)
    rows = [line.split("GiB") for line in capsys.readouterr().out.splitlines()]
    sizes = {what.strip().partition(",")[0].partition(":")[0]: float(size) for size, what in rows}
    assert {"encoder's activations", "LLM's activations", "training", "one stream"} <= sizes.keys()
    assert sizes["training"] == pytest.approx(sum(list(sizes.values())[: list(sizes).index("training")]), abs=0.05)
    conf = ROOT / "egs/librispeech/conf/speech_reallm_llama2_7b.yaml"
    tool("llm_config.py", "llama", "--out", tmp_path, *SIZES)
    for frozen, said in (("[]", "gradients, AdamW"), ("[encoder]", "frozen")):
        capsys.readouterr()
        tool("llm_memory.py", conf, "--override", f"llm={tmp_path}", "--override", f"frozen={frozen}", "--override", "batch_seconds=15")
        printed = capsys.readouterr().out
        assert f"encoder: 48 M weights, {said}" in printed
        assert ("   0.00 GiB  encoder's activations" in printed) == (said == "frozen"), "nothing is kept of it"
    with pytest.raises(SystemExit, match=r"error: .*config\.json does not exist"):
        tool("llm_memory.py", ROOT / "egs/librispeech/conf/speech_reallm_llama2_7b.yaml")


def test_speed_and_memory_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool("llm_config.py", "llama", "--out", tmp_path, "--weights", "vocab_size=10", *SIZES)
    tool("bench/llm.py", "--llm", tmp_path, "--rows", 2, "--positions", 9, "--window", 8, "--streams", 3, "--repeats", 1)
    said = capsys.readouterr().out
    assert "training step, 2 × 9 positions" in said and "3 streams, window 8" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lama"], r"model_type 'lama' \(did you mean 'llama'\?\)"),
        (["llama", "hiden_size=32"], "llama has no 'hiden_size'"),
        (["llama", "hidden_size=33"], "is no configuration of llama"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        tool("llm_config.py", *arguments, "--out", tmp_path / "llm")
    assert not (tmp_path / "llm").exists()
