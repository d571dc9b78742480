"""A run that is killed five times ends with the very weights of one that is not."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm.training.checkpoints import CHECKSUMS, whole_checkpoints
from reallm.training.journal import read_journal

ROOT = Path(__file__).parents[2]
CONFIG = """
seed: 3
system: !new:tests.dummies.training.TinySystem
    width: 6
data: !new:tests.dummies.training.TinyData
    size: 11
    seed: !ref <seed>
training: !new:reallm.training.settings.TrainingSettings
    seed: !ref <seed>
    epochs: 4
    accumulate: 2
    checkpoint_every: 2
    log_every: 1
    keep: 3
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 5
"""
# A child that begins at a checkpoint has at least this many of each left to do, whatever the kills before.
MOST = {"batch": 8, "save": 3, "fsync": 12, "rename": 1}


def run(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def newest(exp: Path) -> dict[str, Any]:
    """All that the last checkpoint holds."""
    folder = next(whole_checkpoints(exp / "checkpoints"))
    names = [name for name in json.loads((folder / CHECKSUMS).read_text()) if name.endswith(".ckpt")]
    assert len(names) == 5
    text = ("brain.ckpt", "epochs.ckpt")
    return {name: (folder / name).read_text() if name in text else torch.load(folder / name) for name in names}


def assert_equal(mine: Any, other: Any) -> None:
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, other)
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key in mine:
            assert_equal(mine[key], other[key])
    elif isinstance(mine, list):
        for one, another in zip(mine, other, strict=True):
            assert_equal(one, another)
    else:
        assert mine == other


def journal(exp: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_journal(exp)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration and the uninterrupted run, by the command that users type."""
    folder = tmp_path_factory.mktemp("resume")
    conf = folder / "conf.yaml"
    conf.write_text(CONFIG)
    run("-m", "reallm.cli", "train", str(conf), "--exp", str(folder / "whole"), "--device", "cpu")
    return conf, folder / "whole"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_five_times_ends_with_bit_equal_weights(whole: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    conf, uninterrupted = whole
    draw = random.Random(seed)
    places = ["batch", *draw.sample(["batch", "save", "fsync", "rename"], 4)]
    kills = [f"{place}:{draw.randint(1, MOST[place])}" for place in places]
    exp = tmp_path / "killed"
    said = run(str(ROOT / "tests/e2e/killed_training.py"), "1", str(conf), str(exp), *kills, "never:0")
    assert said.count("killed") == 5, said
    assert said.count("finished") == 1, said
    assert_equal(newest(exp), newest(uninterrupted))
    assert journal(exp) == journal(uninterrupted)
    assert not list((exp / "checkpoints").glob(".*")), "something half-written was left"
