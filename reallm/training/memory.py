"""What does not fit into memory: a batch ends training with a size that may fit, the weights and what training needs beside them before
it begins."""

from collections.abc import Callable
from typing import Any

import torch

from reallm.errors import InputError
from reallm.memory import free_memory, resident_memory
from reallm.types import Batch

ROOM = 0.9  # of what is free: allocators leave gaps
GIB = 2**30


def no_room_for(system: torch.nn.Module, device: str) -> InputError:
    """The weights themselves did not fit on ``device``: what to do."""
    now = sum(p.numel() * p.element_size() for p in system.parameters())
    half = sum(p.numel() * (p.element_size() if p.requires_grad else min(p.element_size(), 2)) for p in system.parameters())
    fix = f"set the decoder's dtype to bfloat16, which takes {half / GIB:.1f}" if half < now else "take a smaller model, or another device"
    return InputError(f"not enough memory on {device} for the weights, {now / GIB:.1f} GiB: {fix}")


def free_on(device: torch.device | str) -> float:
    """Bytes that this process may still take there; infinite where nobody says."""
    if torch.device(device).type != "cuda":
        return free_memory()
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + reserved)


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


class BatchMemory:
    """What the batches of a run took. Sizes of batches are seconds of audio, padding included.

    Args:
        max_duration: seconds of audio that the data puts into a batch; None where it has no such setting.
    """

    def __init__(self, max_duration: float | None) -> None:
        self.max_duration = max_duration
        self.largest = 0.0  # of the batches that fitted
        self.bytes_a_second = 0.0  # the most that one took beside what was held when it began; 0 = not measured

    def begin(self, batch: Batch, sample_rate: int, device: str) -> None:
        """A batch begins its step."""
        self.device = device
        self.utterances = len(batch.ids)
        self.seconds = self.utterances * int(batch.wav_lens.max()) / sample_rate
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats(device)
            self.held = torch.cuda.memory_allocated(device)
        else:
            self.held, self.most = resident_memory() or (0, 0)

    def end(self) -> None:
        """It fitted."""
        self.largest = max(self.largest, self.seconds)
        if self.device != "cpu":
            took = torch.cuda.max_memory_allocated(self.device) - self.held
            self.bytes_a_second = max(self.bytes_a_second, took / self.seconds)
        elif (now := resident_memory()) and now[1] > self.most:  # else an earlier batch took more, or something else did
            self.bytes_a_second = max(self.bytes_a_second, (now[1] - self.held) / self.seconds)

    def _room(self) -> float:
        """Bytes beside what is always held."""
        if self.device != "cpu":
            return float(torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - self.held)
        return free_memory() + (resident_memory() or (self.held, 0))[0] - self.held

    def refusal(self) -> InputError:
        """It did not fit: what to do."""
        said = f"not enough memory on {self.device} for a batch of {self.utterances} utterances, {self.seconds:.1f} seconds with padding"
        said += f" (the largest that fitted had {self.largest:.1f})" if self.largest else " (none fitted before)"
        if self.bytes_a_second:
            room = self._room()
            seconds = may_fit(self.seconds, self.bytes_a_second, room)
            why = f"an estimate: up to {self.bytes_a_second / GIB:.3f} GiB a second, {room / GIB:.1f} GiB beside the model"
        else:
            seconds, why = self.seconds / 2, "half of it, a guess"
        now = f", now {self.max_duration:g}" if self.max_duration is not None else ""
        return InputError(
            f"{said}: make batches of {seconds:.1f} seconds ({why}; 'max_duration' of the data{now}), with a larger 'accumulate' for "
            "updates of the same size, and train in another --exp"
        )


def may_fit(seconds: float, bytes_a_second: float, room: float) -> float:
    """The size of a batch that ``room`` bytes may hold, when one of ``seconds`` did not fit."""
    return ROOM * min(seconds, room / bytes_a_second)
