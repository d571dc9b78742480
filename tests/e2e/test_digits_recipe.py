"""egs/digits/run.sh from data to report, on tones instead of digits: a minute, and every stage for real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reallm import resources
from tests.dummies.data import write_recordings

RUN = resources.path("egs/digits/run.sh")
STAGES = ["data", "tokenizer", "teacher", "align", "train", "export", "decode", "score", "report"]


def run(exp: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    return subprocess.run(["bash", str(RUN), "--exp", str(exp), *options], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    recordings = write_recordings(tmp_path_factory.mktemp("tones"), seconds=0.4)
    exp = tmp_path_factory.mktemp("exp")
    options = ["--data", str(recordings), "--train-strings", "60", "--synthetic-voices", "1", "--test-strings", "6", "--dev-strings", "4"]
    options += ["--teacher-epochs", "1", "--epochs", "1", "--nj", "1"]
    done = run(exp, *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return exp, options


def test_every_stage_leaves_what_it_promises(finished: tuple[Path, list[str]]) -> None:
    exp, _ = finished
    assert sorted(p.name for p in (exp / ".done").iterdir() if not p.name.startswith(".")) == sorted(STAGES)
    for system in ("speech_reallm", "ctc"):
        bundle = exp / system / "bundle"
        assert {"bundle.json", "model.safetensors", "README.md"} <= {p.name for p in bundle.iterdir()}
        assert sum(p.stat().st_size for p in bundle.iterdir()) < 6e6
        arguments = json.loads((bundle / "bundle.json").read_text())["system"]["kwargs"]
        assert len(arguments.get("token_durations", [])) == (10 if system == "speech_reallm" else 0)
        for split in ("test", "test_noisy"):
            results = json.loads((exp / system / "decode" / split / "results.json").read_text())
            assert results["system"] == system and results["split"] == split
            wanted = {"corpus", "parameters", "wer", "wer_ci95", "errors", "words", "insertions", "deletions", "substitutions"}
            wanted |= {"emission_delay_ms", "final_delay_ms", "word_start_error_ms", "word_end_error_ms", "confidence_auc"}
            wanted |= {"response_cap_hits", "rtf", "seconds_of_audio", "alignment_backend", "git", "seed"}
            assert wanted <= results.keys()
            assert results["words"] > 6
    report = exp / "speech_reallm" / "report"
    assert list(report.glob("*.png"))


def test_a_second_run_does_nothing(finished: tuple[Path, list[str]]) -> None:
    exp, options = finished
    before = {p: p.stat().st_mtime_ns for p in exp.rglob("*") if p.is_file() and ".done" not in p.parts}
    again = run(exp, *options)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(STAGES)
    assert before == {p: p.stat().st_mtime_ns for p in exp.rglob("*") if p.is_file() and ".done" not in p.parts}


def test_other_settings_in_the_same_folder_are_refused(finished: tuple[Path, list[str]]) -> None:
    exp, options = finished
    other = run(exp, *options, "--delay", "2")
    assert other.returncode == 2
    assert "delay=0, not delay=2" in other.stderr


def test_a_stage_before_what_it_needs(tmp_path: Path) -> None:
    early = run(tmp_path / "exp", "--stage", "train")
    assert early.returncode == 2
    assert "stage 5 (train) needs stage 4 (align)" in early.stderr


@pytest.mark.parametrize(("options", "words"), [(["--delai", "2"], "did you mean --delay?"), (["--stage", "decod"], "no stage 'decod'")])
def test_wrong_options_are_named(options: list[str], words: str, tmp_path: Path) -> None:
    wrong = run(tmp_path / "exp", *options)
    assert wrong.returncode == 2
    assert words in wrong.stderr
