"""What tests of the command share."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from reallm.systems.ctc import CTC


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """An experiment with two checkpoints, trained on cuts in ``align/``, which were made of those in ``data/``."""
    folder = tmp_path / "exp"
    folder.mkdir()
    data, align = tmp_path / "data", tmp_path / "align"
    (folder / "config.yaml").write_text(
        f"train: {align}/train.jsonl.gz\ndev: {data}/dev.jsonl.gz\nsystem: !apply:reallm.systems.ctc.CTC.tiny []\n"
        "training: !new:reallm.training.settings.TrainingSettings\n  seed: 7\n  average: 2\n"
    )
    for update in (1, 2):
        torch.manual_seed(update)
        checkpoint = folder / "checkpoints" / f"CKPT+{update:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "CKPT.yaml").write_text("unixtime: 0\n")
        torch.save(CTC.tiny().state_dict(), checkpoint / "system.ckpt")
        sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()}
        (checkpoint / "checksums.json").write_text(json.dumps(sums))
    return folder
