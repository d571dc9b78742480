"""transducer of egs/digits, with another predictor by one line: trained, exported, decoded, and a teacher that aligns."""

import json
from pathlib import Path

from reallm import resources
from reallm.data.alignments import token_alignment
from reallm.data.cuts import read_cuts
from reallm.training.journal import read_journal
from tests.dummies.command import run

SMALL = ["dim=32", "layers=2", "batch_seconds=8", "epochs=1", "warmup=5"]


def test_the_same_commands(digits: Path, tmp_path: Path) -> None:
    text = resources.path("egs/digits/conf/transducer.yaml").read_text()
    conf, exp, out = tmp_path / "conf.yaml", tmp_path / "exp", tmp_path / "decoded"
    swapped = text.replace("predictor/stateless.yaml", "predictor/lstm.yaml")
    conf.write_text(swapped.replace("!include:../../../hparams", f"!include:{resources.path('hparams')}"))
    overrides = [part for item in [*SMALL, f"tokenizer_path={digits / 'character.json'}"] for part in ("--override", item)]
    cuts = ["--train", digits / "train.jsonl.gz", "--dev", digits / "dev.jsonl.gz"]
    assert run("train", conf, "--exp", exp, *cuts, *overrides) == 0
    losses = [line["loss"] for line in read_journal(exp) if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert run("export", exp, "--out", exp / "bundle") == 0
    parts = json.loads((exp / "bundle/bundle.json").read_text())["system"]["kwargs"]
    assert parts["predictor"]["name"] == "lstm"
    options = ["--cuts", digits / "test.jsonl.gz", "--out", out, "--streams", 2, "--rtf-utterances", 1, "--compare-offline"]
    assert run("decode", exp / "bundle", *options, "--beam", 2) == 0
    results = json.loads((out / "results.json").read_text())
    assert (results["system"], results["settings"], results["offline_mismatches"]) == ("transducer", {"beam": 2}, [])
    aligned = tmp_path / "aligned.jsonl.gz"
    assert run("align", exp / "bundle", "--cuts", digits / "test.jsonl.gz", "--out", aligned, "--backend", "torch") == 0
    report = json.loads((tmp_path / "aligned.report.json").read_text())
    assert (report["aligner"], report["utterances"], report["failed"]) == ("rnnt", 3, 0)
    assert report["word_end_error_ms"]["words"] > 3
    assert all(token_alignment(cut, 8000) is not None for cut in read_cuts(aligned))
