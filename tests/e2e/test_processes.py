"""Several processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from reallm.data.cuts import read_cuts, write_cuts
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.experiment import run_training
from tests.dummies.data import aligned_evenly, write_corpus
from tests.dummies.experiments import CONFIG, ROOT, assert_equal, journal, newest, run_python
from tests.e2e.killed_training import free_port

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EXPERIMENTS = {  # name: processes, batches of an update in each, where they are killed
    "two": (2, 1, ["never:0"]),
    "one": (1, 2, ["never:0"]),
    "two of two": (2, 2, ["never:0"]),
    "one of four": (1, 4, ["never:0"]),
    "killed": (2, 1, ["batch:3@1", "save:2", "batch:4", "never:0"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All experiments, from batches with unequal numbers of targets."""
    folder = tmp_path_factory.mktemp("processes")
    jobs: list[str] = []
    for name, (processes, accumulate, kills) in EXPERIMENTS.items():
        conf = folder / f"{accumulate}.yaml"
        conf.write_text(
            CONFIG.replace("size: 11", "size: 11\n    more: 2")
            .replace("epochs: 4", "epochs: 2")
            .replace("accumulate: 2", f"accumulate: {accumulate}")
        )
        jobs += [str(processes), str(conf), str(folder / name), *kills, "--"]
    said = run_python(str(ROOT / "tests/e2e/killed_training.py"), *jobs)
    assert said.count("finished") == 5, said
    assert said.count("killed") == 3, said
    return folder


@pytest.mark.parametrize(("several", "alone"), [("two", "one"), ("two of two", "one of four")])
def test_processes_end_as_one_that_accumulates_their_batches(folder: Path, several: str, alone: str) -> None:
    mine, other = newest(folder / several)["system.ckpt"], newest(folder / alone)["system.ckpt"]
    for name in mine.keys() - {"batches_seen"}:  # one process also sees the batches left over at the end of an epoch
        torch.testing.assert_close(mine[name], other[name], rtol=1e-4, atol=1e-6)
    lines = journal(folder / several)
    assert len(lines) == {"two": 10, "two of two": 4}[several]
    for line, expected in zip(lines, journal(folder / alone), strict=True):
        assert line.pop("kind") == expected.pop("kind")
        assert line == pytest.approx(expected, rel=1e-4)


def test_killed_processes_end_with_bit_equal_weights(folder: Path) -> None:
    assert_equal(newest(folder / "killed"), newest(folder / "two"))
    assert journal(folder / "killed") == journal(folder / "two")


def train(folder: Path, exp: str, *options: str) -> Any:
    command = [sys.executable, "-m", "reallm.cli", "train", str(folder / "1.yaml"), "--exp", str(folder / exp), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=ENVIRONMENT)


def test_one_command_starts_them(folder: Path) -> None:
    done = train(folder, "command", "--device", "cpu", "--devices", "2", "--override", "seed=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'command'}: trained 10 updates, 10 in all\n"
    assert_equal(newest(folder / "command"), newest(folder / "two"))
    assert len(list((folder / "command/tensorboard").iterdir())) == 1, "one process writes"


SPEECH = """
accumulate: 1
system: !apply:reallm.systems.speech_reallm.SpeechReaLLM.tiny
data: !new:reallm.data.dataset.TrainingData
    cuts: MANIFEST
    sample_rate: 8000
    seed: 2
    max_duration: 6
    num_buckets: 2
    tokenizer: FINGERPRINT
training: !new:reallm.training.settings.TrainingSettings
    seed: 3
    epochs: 4
    accumulate: !ref <accumulate>
    log_every: 1
    keep: 1
    average: 1
    checkpoint_every: 0
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 2
"""


def test_a_speech_reallm_has_one_loss_curve_with_two_processes_and_with_one_that_accumulates(tmp_path: Path) -> None:
    """A registered system, which has no dropout, on a manifest with alignments."""
    tokenizer = CharacterTokenizer.tiny()
    manifest = tmp_path / "aligned.jsonl.gz"
    write_cuts(aligned_evenly(read_cuts(write_corpus(tmp_path) / "train.jsonl.gz"), tokenizer), manifest)
    (tmp_path / "1.yaml").write_text(SPEECH.replace("MANIFEST", str(manifest)).replace("FINGERPRINT", tokenizer.fingerprint))
    done = train(tmp_path, "two", "--device", "cpu", "--devices", "2")
    assert done.returncode == 0, done.stderr
    run_training(tmp_path / "1.yaml", tmp_path / "one", ["accumulate=2"], device="cpu", progressbar=False)
    two, one = journal(tmp_path / "two"), journal(tmp_path / "one")
    assert_one_curve(two, one)
    assert one[-1]["loss"] < 0.9 * one[0]["loss"], "it learns, so that one loss shows the updates before it"

    # Each process must know for itself what --init gave of the encoder, and hold that and no more.
    some = {name: weight for name, weight in newest(tmp_path / "one")["system.ckpt"].items() if name.startswith("encoder.layers.0.")}
    assert some
    (tmp_path / "teacher").mkdir()
    save_file(some, tmp_path / "teacher/model.safetensors")
    (tmp_path / "teacher/bundle.json").write_text("{}")
    conf = tmp_path / "1.yaml"
    conf.write_text(conf.read_text().replace("    log_every: 1\n", "    log_every: 1\n    frozen: [encoder]\n    frozen_updates: 6\n"))
    done = train(tmp_path, "two held", "--device", "cpu", "--devices", "2", "--init", str(tmp_path / "teacher"))
    assert done.returncode == 0, done.stderr
    run_training(conf, tmp_path / "one held", ["accumulate=2"], init=tmp_path / "teacher", device="cpu", progressbar=False)
    assert_one_curve(journal(tmp_path / "two held"), journal(tmp_path / "one held"))


def assert_one_curve(two: list[dict[str, Any]], one: list[dict[str, Any]]) -> None:
    assert len(one) == len(two) >= 8
    for mine, other in zip(two, one, strict=True):
        assert {name for name in mine if isinstance(mine[name], float)} >= {"loss", "grad_norm", "lr"}
        assert mine["kind"] == other["kind"] == "train"
        assert {**mine, "kind": 0} == pytest.approx({**other, "kind": 0}, rel=1e-5)


SLURM = """#!/bin/sh
# Two machines, both of which are this one.
case "$0" in
*scontrol) printf 'localhost\\nlocalhost\\n' ;;
*) shift; "$@" & "$@" & wait ;;
esac
"""


def test_the_script_for_slurm_starts_them_on_several_machines(folder: Path, tmp_path: Path) -> None:
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(SLURM)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(free_port() - 20000), "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["tools/slurm_train.sh", str(folder / "1.yaml"), "--exp", str(folder / "slurm"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env={**ENVIRONMENT, **job, "PATH": path})
    assert done.stdout == f"{folder / 'slurm'}: trained 10 updates, 10 in all\n", done.stderr
    assert_equal(newest(folder / "slurm"), newest(folder / "two"))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("alike", ["said: broken audio", "alike: SystemExit 2"]),
        ("one", ["said: broken audio", "one: SystemExit 2"]),
        ("killed", ["killed: InputError one of 2 training processes was ended by SIGKILL, most often because memory ran out: the same"]),
        ("interrupted", ["interrupted: KeyboardInterrupt"]),
        ("orphaned", []),
    ],
)
def test_all_end_with_one_error(failures: dict[str, list[str]], way: str, says: list[str]) -> None:
    assert [line[: len(said)] for line, said in zip(failures[way], says, strict=True)] == says


@pytest.fixture(scope="module")
def failures() -> dict[str, list[str]]:
    """What was said in each way to fail."""
    ways = ["alike", "one", "killed", "interrupted", "orphaned"]  # the last one kills the launcher
    command = [sys.executable, str(ROOT / "tests/e2e/failing_processes.py"), *ways]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
    said: dict[str, list[str]] = {}
    waiting: list[str] = []
    for line in done.stdout.splitlines():
        waiting.append(line)
        way = line.partition(":")[0]
        if way in ways:
            said.setdefault(way, []).extend(waiting)
            waiting = []
    assert not done.stderr, done.stderr
    return {way: said.get(way, []) for way in ways}
