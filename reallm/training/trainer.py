"""One training run in an experiment folder, from the start or from where it was left."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch.utils.data import DataLoader

from reallm.errors import InputError, nearest
from reallm.training.batches import EpochBatches, TrainingSource
from reallm.training.brain import TrainingBrain, Validation
from reallm.training.checkpoints import WholeCheckpointer
from reallm.training.journal import Journal
from reallm.training.randomness import use_deterministic_algorithms
from reallm.training.settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Where a run ended."""

    epochs: int
    updates: int
    resumed_at: int  # updates that were done when this call began


def check_device(device: str | None, precision: str) -> str:
    """The device to train on: the wanted one; None = an accelerator if there is one.

    Raises InputError for one that is not there, or that cannot compute with ``precision``.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = chosen.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device '{chosen}'{nearest(kind, ['cpu', 'cuda'])}: cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{chosen}': this machine has no accelerator that torch can use: --device cpu")
    if kind == "cpu" and precision == "fp16":
        raise InputError("precision fp16 needs an accelerator: on the CPU set precision to bf16 or fp32")
    return chosen


def train(
    system: Any,
    settings: TrainingSettings,
    source: TrainingSource,
    exp: Path,
    validate: Validation | None = None,
    device: str = "cpu",
    progressbar: bool = True,
) -> TrainingResult:
    """Train ``system`` in place until ``settings.epochs`` are done, going on from the newest whole checkpoint in ``exp``.

    Two runs of one seed on one machine end with bit-equal weights, however often one of them was killed.

    Raises InputError when an epoch has fewer batches than an update takes, or the disk is full.
    """
    updates = [source.batches(epoch) // settings.accumulate for epoch in range(1, settings.epochs + 1)]
    if min(updates) < 1:
        raise InputError(f"epoch {updates.index(min(updates)) + 1} has fewer batches than an update takes ({settings.accumulate})")
    use_deterministic_algorithms()
    batches = EpochBatches(source, settings.seed)
    checkpointer = WholeCheckpointer(Path(exp) / "checkpoints", settings.keep)
    epochs = EpochCounter(settings.epochs)
    checkpointer.add_recoverable("epochs", epochs)
    journal = Journal(exp)
    brain = TrainingBrain(system, settings, batches, sum(updates), checkpointer, journal, validate, device, progressbar)
    resumed_at = checkpointer.newest_update()
    try:
        brain.fit(epochs, DataLoader(batches, batch_size=None))
    finally:
        journal.close()
    return TrainingResult(epochs.current, brain.optimizer_step, resumed_at)
