"""What a training run writes down as it goes: train_log.jsonl, which reports are drawn from, and TensorBoard.

A line is one JSON object: ``kind`` ("train" or "validation"), ``update``, ``epoch``, ``seconds`` of training so far, and
numbers (``loss``, ``lr``, ``grad_norm``, … or ``wer``, …).
"""

import json
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from reallm.data.files import atomic_write

LOG_NAME = "train_log.jsonl"


def read_journal(exp: Path) -> list[dict[str, Any]]:
    """The lines of an experiment's train_log.jsonl; a last line that a killed run left unfinished is not one."""
    path = Path(exp) / LOG_NAME
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Journal:
    """The journal of one experiment folder; ``begin`` opens it, ``close`` may come without."""

    def __init__(self, exp: Path) -> None:
        self.exp = Path(exp)
        self._tensorboard: SummaryWriter | None = None

    def begin(self, update: int, epochs_done: int) -> None:
        """Forget what was written after ``update`` (or after an epoch that is not done), since it will happen again, and go on."""
        kept = []
        for line in read_journal(self.exp):
            if line["epoch"] <= epochs_done if line["kind"] == "validation" else line["update"] <= update:
                kept.append(line)
        with atomic_write(self.exp / LOG_NAME) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0.0)
        self._tensorboard = SummaryWriter(str(self.exp / "tensorboard"), purge_step=update + 1)

    def seconds(self) -> float:
        """Of training so far, also of a run that goes on; at most those between two lines of a run that was killed are missing."""
        return time.monotonic() - self._started

    def write(self, kind: str, update: int, epoch: int, numbers: dict[str, float]) -> None:
        """Add one line."""
        assert self._tensorboard is not None, "begin comes first"
        line = {"kind": kind, "update": update, "epoch": epoch, "seconds": round(self.seconds(), 3), **numbers}
        with (self.exp / LOG_NAME).open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, number in numbers.items():
            self._tensorboard.add_scalar(f"{kind}/{name}", number, update)

    def close(self) -> None:
        """Write out what is held back."""
        if self._tensorboard is not None:
            self._tensorboard.close()
