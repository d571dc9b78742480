"""One training run in an experiment folder, from the start or from where it was left."""

import logging
import os
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
from reallm.training.processes import launched, local_rank, rank, world_size
from reallm.training.randomness import use_deterministic_algorithms
from reallm.training.settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Where a run ended."""

    epochs: int
    updates: int
    resumed_at: int  # updates that were done when this call began


def check_device(device: str | None, precision: str = "fp32", processes: int = 1) -> str:
    """The device to train on: the wanted one; None = an accelerator if there is one.

    Args:
        precision: that it has to compute with.
        processes: on this machine, each of which needs an accelerator of its own.

    Raises InputError for one that is not there, for fewer than are needed, and for one that cannot compute with ``precision``.
    """
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = chosen.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device '{chosen}'{nearest(kind, ['cpu', 'cuda'])}: cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{chosen}': this machine has no accelerator that torch can use: --device cpu")
    if kind == "cpu" and precision == "fp16":
        raise InputError("precision fp16 needs an accelerator: on the CPU set precision to bf16 or fp32")
    if kind == "cuda":
        there = torch.cuda.device_count()
        if processes > there:
            raise InputError(f"{processes} processes on this machine, which has {there} accelerators: one for each, or --device cpu")
        if chosen != "cuda" and processes > 1:
            raise InputError(f"device '{chosen}': {processes} processes take one accelerator each: --device cuda")
    return chosen


def own_device(device: str | None) -> str:
    """The device of this very process: of several on one machine each has an accelerator of its own. Raises InputError as above."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1
    chosen = check_device(device, processes=processes)
    return f"cuda:{local_rank()}" if chosen == "cuda" and launched() else chosen


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

    Two runs of one seed on one machine end with bit-equal weights, however often one of them was killed. Processes that have
    joined (processes.py) train together: the result is that of one process that accumulates as many times more batches, up to
    the order in which floating-point numbers are summed.

    Raises InputError when an epoch has fewer batches than an update takes, or the disk is full.
    """
    needed = settings.accumulate * world_size()
    updates = [source.batches(epoch) // needed for epoch in range(1, settings.epochs + 1)]
    if min(updates) < 1:
        raise InputError(f"epoch {updates.index(min(updates)) + 1} has fewer batches than an update takes ({needed})")
    use_deterministic_algorithms()
    batches = EpochBatches(source, settings.seed, rank(), world_size())
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
