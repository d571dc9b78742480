"""The one training loop: SpeechBrain's ``Brain.fit`` as it is, around anything that has ``loss(batch)``."""

import logging
import math
from collections.abc import Callable
from typing import Any

import speechbrain
import torch
from speechbrain import Stage
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from reallm.protocols import System
from reallm.training.batches import EpochBatches
from reallm.training.checkpoints import WholeCheckpointer
from reallm.training.journal import Journal
from reallm.training.randomness import seed_position
from reallm.training.settings import TrainingSettings
from reallm.types import Batch

logger = logging.getLogger(__name__)

Validation = Callable[[System], dict[str, float]]
Output = tuple[Tensor, dict[str, Tensor | float]]


class TrainingBrain(speechbrain.Brain):
    """Trains a system and knows nothing about it.

    Args:
        system: a ``torch.nn.Module`` that is a :class:`reallm.protocols.System`.
        settings: see there.
        batches: the same object is given to ``fit``, in a loader with ``batch_size=None``.
        total_updates: of the whole run, which the schedule is stretched over.
        checkpointer: also holds the epoch counter that is given to ``fit``.
        journal: where losses and validations are written.
        validate: called with the system in evaluation mode after an epoch.
        device: "cpu" or "cuda".
        progressbar: show one.
    """

    def __init__(
        self,
        system: Any,
        settings: TrainingSettings,
        batches: EpochBatches,
        total_updates: int,
        checkpointer: WholeCheckpointer,
        journal: Journal,
        validate: Validation | None = None,
        device: str = "cpu",
        progressbar: bool = True,
    ) -> None:
        run_opts = {
            "device": device,
            "precision": settings.precision,
            "grad_accumulation_factor": settings.accumulate,
            "ckpt_interval_minutes": 0,
            "ckpt_interval_steps": settings.checkpoint_every * settings.accumulate,
            "remove_vector_weight_decay": True,
            "noprogressbar": not progressbar,
        }
        super().__init__({"system": system}, settings.optimizer, run_opts=run_opts, checkpointer=checkpointer)
        checkpointer.add_recoverable("system", system)
        self.settings = settings
        self.batches = batches
        self.total_updates = total_updates
        self.journal = journal
        self.validate = validate

    def init_optimizers(self) -> None:
        super().init_optimizers()
        self.schedule = LambdaLR(self.optimizer, lambda update: self.settings.schedule.factor(update, self.total_updates))
        self.checkpointer.add_recoverable("schedule", self.schedule)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # The epoch in progress is not done: validations of it will happen again.
        self.journal.begin(self.optimizer_step, self.checkpointer.recoverables["epochs"].current)

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        assert stage == Stage.TRAIN and epoch is not None, "fit is given no validation set: validation is streamed"
        self.epoch = epoch
        self.batches.begin(epoch, consumed=self.step)
        self._forget_window()

    def on_fit_batch_start(self, batch: Batch, should_step: bool) -> None:
        seed_position(self.settings.seed, self.epoch, self.step, "model")

    def compute_forward(self, batch: Batch, stage: Stage) -> Output:
        return self.modules.system.loss(batch.to(self.device))

    def compute_objectives(self, predictions: Output, batch: Batch, stage: Stage) -> Tensor:
        return predictions[0]

    def optimizers_step(self) -> None:
        """One update. Beside the parent's: all parameter groups are clipped, a gradient that is not finite is dropped."""
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
        self._lr = self.schedule.get_last_lr()[0]
        if math.isfinite(self._grad_norm) or self.scaler.is_enabled():  # the scaler drops such a gradient by itself
            self.scaler.step(self.optimizer)
        else:
            logger.warning("update %d was left out: its gradient is not finite", self.optimizer_step + 1)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self.schedule.step()

    def on_fit_batch_end(self, batch: Batch, outputs: Output, loss: Tensor, should_step: bool) -> None:
        # Summed where they are: reading a number from an accelerator would wait for it, at every batch.
        for name, number in {"loss": loss, **outputs[1]}.items():
            self._sums[name] = self._sums.get(name, 0.0) + (number.detach().double() if isinstance(number, Tensor) else number)
        self._batches += 1
        if should_step and self.optimizer_step % self.settings.log_every == 0:
            means = {name: float(total) / self._batches for name, total in self._sums.items()}
            numbers = {**means, "lr": float(self._lr), "grad_norm": self._grad_norm}
            self.journal.write("train", self.optimizer_step, self.epoch, numbers)
            self._forget_window()

    def _forget_window(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._batches = 0

    def on_stage_end(self, stage: Stage, stage_loss: float, epoch: int | None = None) -> None:
        assert epoch is not None
        logger.info("epoch %d of %d: update %d, loss %.4f", epoch, self.settings.epochs, self.optimizer_step, stage_loss)
        numbers: dict[str, float] = {}
        if self.validate is not None and (epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs):
            self.modules.eval()
            with torch.no_grad():
                numbers = {name: float(number) for name, number in self.validate(self.modules.system).items()}
            self.journal.write("validation", self.optimizer_step, epoch, numbers)
            logger.info("epoch %d validation: %s", epoch, ", ".join(f"{name} {number:.4g}" for name, number in numbers.items()))
        # fit sets these two to 0 after this hook only, and a checkpoint with them would begin the next epoch in its middle.
        self.step = 0
        self.avg_train_loss = 0.0
        self.checkpointer.save_and_keep_only(meta={"epoch": epoch, **numbers}, end_of_epoch=True)
