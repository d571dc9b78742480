"""Memory of a device that computes: what is free of it, what batches took, and which size may fit in place of one that did not."""

from collections.abc import Callable

import torch

from reallm.errors import InputError
from reallm.memory import free_memory, resident_memory
from reallm.types import Batch

ROOM = 0.9  # of what is free: allocators leave gaps
GIB = 2**30


def free_on(device: torch.device | str) -> float:
    """Bytes that this process may still take there; infinite where nobody says."""
    if torch.device(device).type != "cuda":
        return free_memory()
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + reserved)


class BatchMemory:
    """What the batches of a run took. Sizes of batches are seconds of audio, padding included.

    Args:
        advice: the seconds that a batch may have → how a user makes such batches.
    """

    def __init__(self, advice: Callable[[float], str]) -> None:
        self.advice = advice
        self.largest = 0.0  # of the batches that fitted
        self.bytes_a_second = 0.0  # the most that one took beside what was held when it began; 0 = not measured

    def begin(self, batch: Batch, sample_rate: int, device: torch.device | str) -> None:
        """A batch begins its step."""
        self.device = torch.device(device)
        self.ids = batch.ids
        self.seconds = len(batch.ids) * int(batch.wav_lens.max()) / sample_rate
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.held = torch.cuda.memory_allocated(self.device)
        else:
            self.held, self.most = resident_memory() or (0, 0)

    def end(self) -> None:
        """It fitted."""
        self.largest = max(self.largest, self.seconds)
        if not self.seconds:  # recordings of no length
            return
        if self.device.type == "cuda":
            took = torch.cuda.max_memory_allocated(self.device) - self.held
            self.bytes_a_second = max(self.bytes_a_second, took / self.seconds)
        elif (now := resident_memory()) and now[1] > self.most:  # else an earlier batch took more, or something else did
            self.bytes_a_second = max(self.bytes_a_second, (now[1] - self.held) / self.seconds)

    def _room(self) -> float:
        """Bytes beside what is always held."""
        if self.device.type == "cuda":
            return float(torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - self.held)
        return free_memory() + (resident_memory() or (self.held, 0))[0] - self.held

    def refusal(self) -> InputError:
        """It did not fit: what to do. An utterance that does not fit alone makes no smaller batch."""
        if len(self.ids) == 1:
            return InputError(
                f"not enough memory on {self.device} for utterance '{self.ids[0]}' of {self.seconds:.1f} seconds, a batch of its own: "
                "leave utterances as long out, or take a smaller model, or a device with more memory"
            )
        said = f"not enough memory on {self.device} for a batch of {len(self.ids)} utterances, {self.seconds:.1f} seconds with padding"
        said += f" (the largest that fitted had {self.largest:.1f})" if self.largest else " (none fitted before)"
        if self.bytes_a_second and (room := self._room()) > 0:
            seconds = may_fit(self.seconds, self.bytes_a_second, room)
            why = f"an estimate: up to {self.bytes_a_second / GIB:.3f} GiB a second, {room / GIB:.1f} GiB beside the model"
        else:
            seconds, why = self.seconds / 2, "half of it, a guess"
        return InputError(f"{said}: make batches of {seconds:.1f} seconds ({why}): {self.advice(seconds)}")


def may_fit(seconds: float, bytes_a_second: float, room: float) -> float:
    """The size of a batch that ``room`` bytes may hold, when one of ``seconds`` did not fit."""
    return ROOM * min(seconds, room / bytes_a_second)
