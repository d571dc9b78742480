"""Swapping is real: each component of egs/digits is replaced by one line of its YAML, the aligner by options, and the system trains."""

import re
from pathlib import Path
from typing import Any

import pytest

from reallm import resources
from reallm.bundle import export
from reallm.data.alignments import token_meta, words
from reallm.data.cuts import read_cuts, text_of, write_cuts
from reallm.registry import find
from reallm.training.experiment import load_trained, run_training
from reallm.training.journal import read_journal
from tests.dummies.command import run
from tests.dummies.data import aligned_evenly, write_corpus

SMALL = ["dim=32", "layers=2", "decoder_dim=32", "decoder_layers=2", "batch_seconds=8", "epochs=1", "warmup=5"]
SWAPS = [
    ("frontend", "frontend/mfcc"),
    ("encoder", "encoder/lstm"),
    ("adapter", "adapter/conv"),
    ("decoder", "decoder/lstm"),
    ("interleaver", "interleaver/blank_fed"),
    ("interleaver", "interleaver/chunk_eos"),
    ("interleaver", "interleaver/delayed_stream"),
    ("searcher", "searcher/sampling"),
    ("tokenizer", "tokenizer/character"),
    ("tokenizer", "tokenizer/sentencepiece"),
]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), train_strings=100, epochs=1, dev_strings=4)


def tokenizer_and_cuts(kind: str, manifests: Path, folder: Path) -> tuple[Path, Path]:
    """A tokenizer of this kind, and the training cuts with its tokens spread evenly over each utterance."""
    cuts = list(read_cuts(manifests / "train.jsonl.gz"))
    path = folder / "tokenizer"
    options = {"vocab_size": 20} if kind == "sentencepiece" else {}
    find("tokenizer", kind).train([text_of(cut) for cut in cuts], path, **options)
    tokenizer = find("tokenizer", kind)(path)
    write_cuts(aligned_evenly(cuts, tokenizer), folder / "train.jsonl.gz")
    return path, folder / "train.jsonl.gz"


def trained(conf: Path, tokenizer: Path, cuts: Path, manifests: Path, exp: Path) -> Any:
    """What 20 updates and more make of a system: it learns."""
    overrides = [*SMALL, f"tokenizer_path={tokenizer}", f"train={cuts}", f"dev={manifests / 'dev.jsonl.gz'}"]
    result = run_training(conf, exp, overrides, device="cpu", progressbar=False)
    assert result.updates >= 20
    losses = [line["loss"] for line in read_journal(exp) if "loss" in line]
    assert losses[-1] < losses[0]
    return load_trained(exp)


@pytest.mark.parametrize(("key", "file"), SWAPS)
def test_one_line_swaps_a_component(key: str, file: str, manifests: Path, tmp_path: Path) -> None:
    recipe = resources.path("egs/digits/conf/speech_reallm.yaml")
    text, count = re.subn(rf"(?m)^({key}: !include:).*$", rf"\g<1>{resources.path(f'hparams/{file}.yaml')}", recipe.read_text())
    assert count == 1
    text = text.replace("!include:../../../hparams", f"!include:{resources.path('hparams')}")
    conf = tmp_path / "swapped.yaml"
    conf.write_text(text)
    tokenizer, cuts = tokenizer_and_cuts(Path(file).name if key == "tokenizer" else "word", manifests, tmp_path)
    system = trained(conf, tokenizer, cuts, manifests, tmp_path / "exp")
    swapped = getattr(system, key).component_spec
    assert (swapped.kind, swapped.name) == tuple(file.split("/"))


def test_options_swap_the_aligner(manifests: Path, tmp_path: Path) -> None:
    tokenizer, _ = tokenizer_and_cuts("word", manifests, tmp_path)
    encoder = find("encoder", "lstm").tiny()
    frontend = find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim)
    teacher = find("system", "ctc")(frontend, encoder, find("tokenizer", "word")(tokenizer))
    export(teacher, tmp_path / "teacher", {"license": "none", "training_data": "none"})
    cuts, aligned = manifests / "train.jsonl.gz", tmp_path / "aligned.jsonl.gz"
    times = [f"{cut.id} 1 {word.start} {word.end - word.start} {word.word}" for cut in read_cuts(cuts) for word in words(cut)]
    (tmp_path / "words.ctm").write_text("\n".join(times))
    swapped = ["--aligner", "ctm", "--ctm", tmp_path / "words.ctm"]
    assert run("align", tmp_path / "teacher", "--cuts", cuts, "--out", aligned, *swapped) == 0
    assert {(token_meta(cut) or {}).get("backend") for cut in read_cuts(aligned)} == {"ctm"}
    trained(resources.path("egs/digits/conf/speech_reallm.yaml"), tokenizer, aligned, manifests, tmp_path / "exp")
