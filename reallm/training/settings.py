"""What a training configuration may say about training, all in one place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reallm.errors import InputError, at_least, nearest
from reallm.training.schedules import Schedule

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingSettings:
    """The key ``training`` of a configuration. Every length is counted in updates unless the field says otherwise.

    An *update* is one optimizer step, which takes ``accumulate`` batches.

    Raises InputError for a value that cannot be.
    """

    epochs: int  # passes over what the data calls an epoch
    optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer]  # ``!name:``, called with the parameters
    schedule: Schedule  # multiplies the optimizer's learning rate
    seed: int = 1  # all randomness is drawn from (seed, position), see randomness.py
    max_grad_norm: float = 1.0
    accumulate: int = 1  # batches per update
    precision: str = "fp32"  # or bf16, fp16 (mixed precision; fp16 needs an accelerator)
    checkpoint_every: int = 200  # beside the one at the end of each epoch; 0 = only that one
    keep: int = 5  # checkpoints kept
    average: int = 3  # last checkpoints whose weights are averaged at export
    validate_every: int = 1  # epochs; the last epoch is always validated
    validate_utterances: int = 0  # of the dev manifest, the first ones; 0 = all
    log_every: int = 10
    minutes: float | None = None  # of training at most, by the clock; the schedule then ends with them
    frozen: Sequence[str] = ()  # parts of the system that are not trained, such as [encoder]
    frozen_updates: int | None = None  # they are frozen for so many updates, and then only what --init gave of each; None = for ever

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision '{self.precision}'{nearest(self.precision, PRECISIONS)}: one of {', '.join(PRECISIONS)}")
        lengths = ("epochs", "accumulate", "average", "validate_every", "log_every")
        at_least(1, **{name: getattr(self, name) for name in lengths})
        at_least(0, checkpoint_every=self.checkpoint_every, validate_utterances=self.validate_utterances)
        if self.keep < self.average:
            raise InputError(
                f"training: keep is {self.keep}, but {self.average} checkpoints are to be averaged: set keep to {self.average}"
            )
        if not self.max_grad_norm > 0:
            raise InputError(f"training: max_grad_norm is {self.max_grad_norm}: above 0")
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"training: minutes is {self.minutes}: above 0, or null")
        if isinstance(self.frozen, str) or not all(isinstance(name, str) for name in self.frozen):
            raise InputError(f"training: frozen is {self.frozen!r}: a list of names, such as [encoder]")
        if self.frozen_updates is not None:
            at_least(0, frozen_updates=self.frozen_updates)
            if not self.frozen:
                raise InputError(f"training: frozen_updates is {self.frozen_updates}, of no part: name some in frozen, such as [encoder]")
        if not callable(self.optimizer):
            raise InputError("training: optimizer is built already: write !name: instead of !new:")
