"""One training run in an experiment folder, from the start or from where it was left."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechbrain.utils.epoch_loop import EpochCounter
from torch.utils.data import DataLoader

from reallm.errors import InputError
from reallm.memory import ran_out
from reallm.training.batches import EpochBatches, TrainingSource
from reallm.training.brain import TrainingBrain, Validation
from reallm.training.checkpoints import WholeCheckpointer
from reallm.training.journal import Journal
from reallm.training.memory import check_training, no_room_for
from reallm.training.processes import rank, world_size
from reallm.training.randomness import use_deterministic_algorithms
from reallm.training.settings import TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Where a run ended."""

    epochs: int
    updates: int
    resumed_at: int  # updates that were done when this call began


def train(
    system: Any,
    settings: TrainingSettings,
    source: TrainingSource,
    exp: Path,
    validate: Validation | None = None,
    device: str = "cpu",
    progressbar: bool = True,
    batch_key: str | None = None,
    taken: Collection[str] = (),
) -> TrainingResult:
    """Train ``system`` in place until ``settings.epochs`` or ``settings.minutes`` are over, from the newest whole checkpoint in ``exp`` on.

    Where no clock ends them, two runs of one seed on one machine end with bit-equal weights, however often one of them was killed.
    Processes that have joined (processes.py) train together: the result is that of one process that accumulates as many times more
    batches, up to the order in which floating-point numbers are summed. ``batch_key``, ``taken``: see :class:`TrainingBrain`.

    Raises InputError when an epoch has fewer batches than an update takes, when memory has no room for the weights, what training needs
    beside them or a batch, or the disk is full.
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
    try:
        brain = TrainingBrain(
            system, settings, batches, sum(updates), checkpointer, journal, validate, device, progressbar, batch_key, taken
        )
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise no_room_for(system, device) from error
    check_training(system, settings.optimizer, device)
    resumed_at = checkpointer.newest_update()
    try:
        brain.fit(epochs, DataLoader(batches, batch_size=None))
    finally:
        journal.close()
    return TrainingResult(epochs.current, brain.optimizer_step, resumed_at)
