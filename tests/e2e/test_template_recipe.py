"""A recipe of one's own: egs/TEMPLATE is copied, made small, and run from a table of files to its report."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from reallm import resources
from tests.dummies.data import RATE, tone

TEMPLATE = resources.path("egs/TEMPLATE")
STAGES = ["data", "tokenizer", "teacher", "align", "train", "export", "decode", "score", "report"]
SMALL = {
    **{"sample_rate": RATE, "mels": 20, "dim": 32, "layers": 2, "decoder_dim": 32, "decoder_layers": 1},
    **{"batch_seconds": 8, "warmup": 2},
}
WORDS = {"low": 300, "middle": 700, "high": 1500}


def write_tables(folder: Path) -> Path:
    """train.tsv, dev.tsv and test.tsv, of files with one to three tones."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("dev", 2), ("test", 3)):
        lines = ["path\ttext\tspeaker"]
        for number in range(count):
            words = random.choice(list(WORDS), 1 + number % 3)
            audio = np.concatenate([tone(WORDS[word], 0.3) for word in words])
            soundfile.write(folder / f"{split}-{number}.flac", audio, RATE)
            lines.append(f"{split}-{number}.flac\t{' '.join(words)}\tada")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def run(recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "REALLM_DATA"}
    return subprocess.run(["bash", str(recipe / "run.sh"), *options], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy beside tools/ and hparams/, as in a clone, whose set-up is done."""
    clone = tmp_path_factory.mktemp("clone")
    for shared in ("tools", "hparams"):
        shutil.copytree(TEMPLATE.parents[1] / shared, clone / shared)
    (clone / "tools/activate.sh").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    copy = clone / "egs/mine"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("exp"))
    changed = set()
    for conf in (copy / "conf").iterdir():
        text = conf.read_text()
        for key, value in SMALL.items():
            text, count = re.subn(rf"(?m)^{key}: [^#\n]*", f"{key}: {value} ", text)
            changed |= {key} if count else set()
        conf.write_text(text)
    assert changed == SMALL.keys()
    return copy


def test_the_copy_runs_from_a_table_of_files_to_its_report(recipe: Path, tmp_path: Path) -> None:
    data = write_tables(tmp_path / "data")
    options = ["--data", str(data), "--teacher-epochs", "1", "--epochs", "1", "--nj", "1", "--license", "CC0"]
    done = run(recipe, *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    exp = recipe / "exp"
    assert sorted(p.name for p in (exp / ".done").iterdir() if not p.name.startswith(".")) == sorted(STAGES)
    results = json.loads((exp / "speech_reallm/decode/test/results.json").read_text())
    assert (results["system"], results["split"], results["words"], results["corpus"]["name"]) == ("speech_reallm", "test", 6, "mine")
    card = (exp / "speech_reallm/bundle/README.md").read_text()
    assert "| licence | CC0 |" in card and "| training data | mine" in card
    assert list((exp / "speech_reallm/report").glob("*.png"))
    again = run(recipe, *options)
    assert again.returncode == 0 and again.stdout.count("done before") == len(STAGES)
    other = run(recipe, *options[:-4], "--epochs", "2")
    assert other.returncode == 2 and "epochs=1, not epochs=2" in other.stderr


@pytest.mark.parametrize(("options", "words"), [([], "name their folder with --data"), (["--data", "/nowhere"], "/nowhere/train.tsv")])
def test_data_that_is_not_there_is_named(recipe: Path, tmp_path: Path, options: list[str], words: str) -> None:
    missing = run(recipe, "--exp", str(tmp_path / "exp"), *options)
    assert missing.returncode == 2
    assert words in missing.stderr
