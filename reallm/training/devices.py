"""What a process computes on."""

import os

import torch

from reallm.errors import InputError, nearest
from reallm.training.processes import launched, local_rank


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


def own_device(device: str | None, precision: str = "fp32") -> str:
    """The device of this very process: of several on one machine each has an accelerator of its own. Raises InputError as above."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() else 1
    chosen = check_device(device, precision, processes)
    return f"cuda:{local_rank()}" if chosen == "cuda" and launched() else chosen
