"""What does not fit into memory before training begins: the weights, and what training needs beside them."""

from collections.abc import Callable
from typing import Any

import torch

from reallm.device_memory import GIB, free_on
from reallm.errors import InputError


def no_room_for(system: torch.nn.Module, device: str) -> InputError:
    """The weights themselves did not fit on ``device``: what to do."""
    now = sum(p.numel() * p.element_size() for p in system.parameters())
    half = sum(p.numel() * (p.element_size() if p.requires_grad else min(p.element_size(), 2)) for p in system.parameters())
    fix = f"set the decoder's dtype to bfloat16, which takes {half / GIB:.1f}" if half < now else "take a smaller model, or another device"
    return InputError(f"not enough memory on {device} for the weights, {now / GIB:.1f} GiB: {fix}")


def check_training(system: torch.nn.Module, optimizer: Callable[[Any], torch.optim.Optimizer], device: str) -> None:
    """Raises InputError where the gradients and the optimizer's averages have no room beside the weights, which are on ``device``.

    With AdamW a float32 weight that is trained takes 16 bytes: itself, its gradient and two averages. Activations come on top of that.
    """
    averages = 2 if isinstance(optimizer([torch.nn.Parameter(torch.zeros(1))]), (torch.optim.Adam, torch.optim.AdamW)) else 0
    trained = sum(p.numel() * p.element_size() for p in system.parameters() if p.requires_grad)
    count = sum(p.numel() for p in system.parameters() if p.requires_grad)
    wanted, free = trained * (1 + averages), free_on(device)
    if wanted > free:
        raise InputError(
            f"not enough memory on {device} to train {count / 1e9:.2f} billion weights: beside them, {trained / GIB:.1f} GiB, their "
            f"gradients and the optimizer's {averages} averages take {wanted / GIB:.1f} GiB, {free / GIB:.1f} are free: train fewer "
            "(lora_rank of an LLM; 'frozen' of the training), or take a device with more"
        )
