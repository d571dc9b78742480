"""The one training loop: SpeechBrain's ``Brain.fit`` as it is, around anything that has ``loss(batch)``.

An update takes several batches where gradients are accumulated, where several processes train, or both. Its loss is the
mean over the targets of them all, as if they were one batch: the gradient of batch b, a mean over n_b targets, is weighed
with n_b / n_0, and the sum of an update is divided by Σ n_b / n_0. n_0, the targets of the processes' first batches, is known
before the first backward pass, so that gradients keep their size, and one batch alone its bits.
"""

import logging
import math
from collections.abc import Callable, Collection
from typing import Any

import speechbrain
import torch
from speechbrain import Stage
from speechbrain.utils.distributed import ddp_all_reduce, if_main_process
from torch import Tensor, nn
from torch.distributed import ReduceOp
from torch.optim.lr_scheduler import LambdaLR

from reallm.device_memory import BatchMemory
from reallm.memory import ran_out
from reallm.protocols import System
from reallm.training.batches import EpochBatches
from reallm.training.checkpoints import WholeCheckpointer
from reallm.training.frozen import Held, freeze, held_at_first
from reallm.training.journal import Journal
from reallm.training.randomness import seed_position
from reallm.training.settings import TrainingSettings
from reallm.types import Batch

logger = logging.getLogger(__name__)

Validation = Callable[[System], dict[str, float]]
Output = tuple[Tensor, dict[str, Tensor | float]]


class _Loss(nn.Module):
    """What DistributedDataParallel needs to be called by: the loss as ``forward``."""

    def __init__(self, system: Any) -> None:
        super().__init__()
        self.system = system

    def forward(self, batch: Batch) -> Output:
        loss: Output = self.system.loss(batch)
        return loss


class TrainingBrain(speechbrain.Brain):
    """Trains a system and knows nothing about it.

    Of several processes the first one writes checkpoints and the journal and validates, while the others wait for it.

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
        batch_key: what ``--override`` calls the seconds of audio in a batch; None = it is not known.
        taken: names of the weights that came from --init: see :func:`reallm.training.frozen.held_at_first`.
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
        batch_key: str | None = None,
        taken: Collection[str] = (),
    ) -> None:
        run_opts = {
            "device": device,
            "distributed_backend": "gloo" if device == "cpu" else "nccl",
            "precision": settings.precision,
            "grad_accumulation_factor": settings.accumulate,
            "ckpt_interval_minutes": 0,
            "ckpt_interval_steps": settings.checkpoint_every * settings.accumulate,
            "remove_vector_weight_decay": True,
            "noprogressbar": not progressbar,
        }
        self.frozen = freeze(system, settings.frozen if settings.frozen_updates is None else ())
        self.held = held_at_first(system, settings.frozen, taken) if settings.frozen_updates else Held([], [])
        super().__init__({"loss": _Loss(system)}, settings.optimizer, run_opts=run_opts, checkpointer=checkpointer)
        checkpointer.add_recoverable("system", system)
        self.system = system
        self.settings = settings
        self.batches = batches
        self.batch_key = batch_key
        self.memory = BatchMemory(self._smaller_batches)
        self.update_targets: list[Tensor] = []  # of all processes, for each of their batches in the update in progress: n_0, …
        self.total_updates = total_updates
        self._seconds = 0.0  # of training, with a limit of time
        self.journal = journal
        self.validate = validate

    def init_optimizers(self) -> None:
        super().init_optimizers()
        self.schedule = LambdaLR(self.optimizer, lambda update: self.settings.schedule.factor(update, self._total(update)))
        self.checkpointer.add_recoverable("schedule", self.schedule)

    def _smaller_batches(self, seconds: float) -> str:
        """How a user makes batches of so many seconds."""
        now = getattr(self.batches.source, "max_duration", None)
        way = f"--override {self.batch_key}={seconds:.1f}" if self.batch_key else "'max_duration' under 'data' in the configuration"
        way += f" (now {now:g})" if now is not None else ""
        return f"{way}, with a larger 'accumulate' under 'training' for updates of the same size, in another --exp"

    def _total(self, update: int) -> int:
        """The updates of the whole run, as it looks after ``update``: with a limit of time, those that it leaves room for."""
        if self.settings.minutes is None or update == 0:
            return self.total_updates
        return min(self.total_updates, round(update * 60 * self.settings.minutes / max(self._seconds, 1e-9)))

    def _look_at_the_clock(self) -> None:
        """All processes see that of the first: they must have one learning rate, and stop together."""
        if self.settings.minutes is not None:
            mine = torch.tensor(self.journal.seconds() if if_main_process() else 0.0, dtype=torch.float64, device=self.device)
            self._seconds = float(ddp_all_reduce(mine, ReduceOp.MAX))

    def _out_of_time(self) -> bool:
        return self.settings.minutes is not None and self._seconds >= 60 * self.settings.minutes

    def on_fit_start(self) -> None:
        super().on_fit_start()
        epochs = self.checkpointer.recoverables["epochs"]
        if if_main_process():
            # The epoch in progress is not done: validations of it will happen again.
            self.journal.begin(self.optimizer_step, epochs.current)
        self._look_at_the_clock()
        if self._out_of_time():
            epochs.limit = epochs.current

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        assert stage == Stage.TRAIN and epoch is not None, "fit is given no validation set: validation is streamed"
        self.epoch = epoch
        self.batches.begin(epoch, consumed=self.step)
        self._forget_window()
        self.update_targets.clear()

    def fit_batch(self, batch: Batch) -> Tensor:
        """As the parent's. Raises InputError, with a size that may fit, for a batch that the memory has no room for."""
        self.memory.begin(batch, self.system.sample_rate, self.device)
        try:
            loss: Tensor = super().fit_batch(batch)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            raise self.memory.refusal() from error
        self.memory.end()
        return loss

    def on_fit_batch_start(self, batch: Batch, should_step: bool) -> None:
        seed_position(self.settings.seed, self.epoch, self.batches.number(self.step - 1) + 1, "model")
        for part in self.frozen:  # fit has put everything into training mode
            part.eval()
        for part in self.held.modules:
            part.train(not self._holds())

    def _holds(self) -> bool:
        """Whether some parts are frozen yet, of which the optimizer has the parameters."""
        return self.optimizer_step < (self.settings.frozen_updates or 0)

    def compute_forward(self, batch: Batch, stage: Stage) -> Output:
        return self.modules.loss(batch.to(self.device))

    def compute_objectives(self, predictions: Output, batch: Batch, stage: Stage) -> Tensor:
        loss, numbers = predictions
        self._targets = torch.as_tensor(numbers.pop("targets"), dtype=torch.float64, device=self.device)
        self.update_targets.append(ddp_all_reduce(self._targets.clone(), ReduceOp.SUM))
        # The value stays the batch's own, for the journal. DistributedDataParallel takes the mean over processes, hence their number.
        weight = (self.batches.processes * self._targets / self.update_targets[0]).to(loss.dtype)
        loss.register_hook(lambda gradient: gradient * weight)
        return loss

    def optimizers_step(self) -> None:
        """One update. Beside the parent's: all groups are clipped; gradients that are not finite, or of what is held, are dropped."""
        if self._holds():
            # Thrown away rather than not computed: DistributedDataParallel waits for the gradient of every parameter that it knows.
            for parameter in self.held.parameters:
                parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if self.settings.accumulate > 1:  # the parent has divided by this number
            factor = self.settings.accumulate * self.update_targets[0] / torch.stack(self.update_targets).sum()
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad *= factor
        self.update_targets.clear()
        self._grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
        self._lr = self.schedule.get_last_lr()[0]
        if math.isfinite(self._grad_norm) or self.scaler.is_enabled():  # the scaler drops such a gradient by itself
            self.scaler.step(self.optimizer)
        else:
            logger.warning("update %d was left out: its gradient is not finite", self.optimizer_step + 1)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self._look_at_the_clock()
        self.schedule.step()
        if self._out_of_time():
            self.optimizer_step_limit = self.optimizer_step  # fit stops there

    def on_fit_batch_end(self, batch: Batch, outputs: Output, loss: Tensor, should_step: bool) -> None:
        # Summed where they are: reading a number from an accelerator would wait for it, at every batch.
        for name, number in {"targets": 1.0, "loss": loss, **outputs[1]}.items():
            value = number.detach().double() if isinstance(number, Tensor) else number
            self._sums[name] = self._sums.get(name, 0.0) + value * self._targets
        if should_step and self.optimizer_step % self.settings.log_every == 0:
            targets, *sums = (float(total) for total in ddp_all_reduce(torch.stack(list(self._sums.values())), ReduceOp.SUM))
            if if_main_process():
                means = {name: total / targets for name, total in zip(list(self._sums)[1:], sums, strict=True)}
                numbers = {**means, "lr": float(self._lr), "grad_norm": self._grad_norm}
                self.journal.write("train", self.optimizer_step, self.epoch, numbers)
            self._forget_window()

    def _forget_window(self) -> None:
        self._sums: dict[str, Tensor] = {}  # over all targets since the last line of the journal

    def on_stage_end(self, stage: Stage, stage_loss: float, epoch: int | None = None) -> None:
        assert epoch is not None
        logger.info("epoch %d of %d: update %d, loss %.4f", epoch, self.settings.epochs, self.optimizer_step, stage_loss)
        numbers: dict[str, float] = {}
        last = epoch == self.settings.epochs or self._out_of_time()
        if self.validate is not None and if_main_process() and (epoch % self.settings.validate_every == 0 or last):
            self.modules.eval()
            with torch.no_grad():
                numbers = {name: float(number) for name, number in self.validate(self.system).items()}
            self.journal.write("validation", self.optimizer_step, epoch, numbers)
            logger.info("epoch %d validation: %s", epoch, ", ".join(f"{name} {number:.4g}" for name, number in numbers.items()))
        # fit sets these two to 0 after this hook only, and a checkpoint with them would begin the next epoch in its middle.
        self.step = 0
        self.avg_train_loss = 0.0
        self.checkpointer.save_and_keep_only(meta={"epoch": epoch, **numbers}, end_of_epoch=True)
