"""aed and decoder_only of egs/digits: trained, exported, decoded, transcribed and scored by the commands of the systems that stream."""

import json
from pathlib import Path
from typing import Any

import pytest

from reallm import resources
from reallm.registry import spec_of
from reallm.training.experiment import load_trained, run_training
from reallm.training.journal import read_journal
from tests.dummies.command import run

SMALL = ["dim=32", "layers=2", "decoder_dim=32", "decoder_layers=2", "batch_seconds=8", "epochs=1", "warmup=5", "lr=0.003", "beam=2"]


def test_a_recurrent_decoder_is_one_line_away(digits: Path, tmp_path: Path) -> None:
    text = resources.path("egs/digits/conf/decoder_only.yaml").read_text().replace("decoder/llama_full.yaml", "decoder/lstm.yaml")
    conf = tmp_path / "swapped.yaml"
    conf.write_text(text.replace("!include:../../../hparams", f"!include:{resources.path('hparams')}"))
    overrides = [*SMALL, f"tokenizer_path={digits / 'word.json'}", f"train={digits / 'train.jsonl.gz'}", f"dev={digits / 'dev.jsonl.gz'}"]
    result = run_training(conf, tmp_path / "exp", overrides, device="cpu", progressbar=False)
    assert result.updates >= 20
    system: Any = load_trained(tmp_path / "exp")
    assert spec_of(system.decoder).name == "lstm"


@pytest.mark.parametrize("name", ["aed", "decoder_only"])
def test_the_same_commands(name: str, digits: Path, tmp_path: Path, capsys: Any) -> None:
    exp, out = tmp_path / "exp", tmp_path / "decoded"
    overrides = [part for item in [*SMALL, f"tokenizer_path={digits / 'word.json'}"] for part in ("--override", item)]
    cuts = ["--train", digits / "train.jsonl.gz", "--dev", digits / "dev.jsonl.gz"]
    assert run("train", resources.path(f"egs/digits/conf/{name}.yaml"), "--exp", exp, *cuts, *overrides) == 0
    assert max(line["update"] for line in read_journal(exp)) >= 20
    assert run("export", exp, "--out", exp / "bundle") == 0
    options = ["--cuts", digits / "test.jsonl.gz", "--out", out, "--streams", 2, "--rtf-utterances", 1, "--compare-offline"]
    assert run("decode", exp / "bundle", *options, "--beam", 3) == 0
    results = json.loads((out / "results.json").read_text())
    assert (results["system"], results["settings"], results["offline_mismatches"]) == (name, {"beam": 3}, [])
    assert results["words"] > 3 and results["rtf"] > 0
    hyps = [json.loads(line) for line in (out / "hyps.jsonl").read_text().splitlines()]
    words = [(word, hyp["seconds"]) for hyp in hyps for word in hyp["words"]]
    assert words and all(word["emitted_at"] == pytest.approx(seconds, abs=1e-3) for word, seconds in words), "at the utterance's end"
    assert run("score", out / "hyps.jsonl", "--cuts", digits / "test.jsonl.gz", "--out", tmp_path / "again.json") == 0
    assert json.loads((tmp_path / "again.json").read_text())["wer"] == results["wer"]
    file = next(digits.parent.rglob("*.wav"))
    capsys.readouterr()
    assert run("transcribe", "--model", exp / "bundle", "--json", file) == 0
    transcribed = json.loads(capsys.readouterr().out)
    assert all(word["emitted_at"] == pytest.approx(transcribed["seconds_of_audio"], abs=1e-3) for word in transcribed["words"])
