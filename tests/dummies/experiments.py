"""Trainings of a tiny system in processes of their own, and what they leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def run_python(*command: str) -> str:
    """What the interpreter prints for these arguments; a failure is told."""
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
    """Equal to the bit, whatever is in them."""
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
    """The lines of its journal, without the time that they took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_journal(exp)]
