"""Memory that decoding and aligning did not find: what would fit, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reallm.errors import InputError
from reallm.memory import ran_out


@contextmanager
def memory_told(system: Any, device: str, jobs: int, streams: int = 0, precisions: bool = False, dask: str | None = None) -> Iterator[None]:
    """A lack of memory in here is an InputError that says which precision, number of jobs or of streams would fit.

    Args:
        system: what works, in each of ``jobs`` processes.
        streams: at a time in each; 0 = there is no such choice, and what works says itself which of its batches would fit.
        precisions: whether there is an option --dtype.
        dask: the scheduler whose workers do it; how much memory these have is not known here.
    """
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        if dask is not None:
            raise _refusal_of_a_worker(error, dask, streams) from error
        raise _refusal(system, device, jobs, streams, precisions) from error


def _refusal_of_a_worker(error: RuntimeError, dask: str, streams: int) -> InputError:
    fix = f"fewer --streams than {streams}, or " if streams > 1 else ""
    return InputError(f"not enough memory on a worker of --dask {dask} ({str(error).splitlines()[0]}): take {fix}workers with more memory")


def _refusal(system: Any, device: str, jobs: int, streams: int, precisions: bool) -> InputError:
    from reallm.device_memory import GIB, ROOM, free_on
    from reallm.protocols import streams as can_stream
    from reallm.streaming.state import tensors

    sizes = [(p.numel(), p.element_size()) for p in system.parameters()]
    weights, half = (float(sum(count * size for count, size in each)) for each in (sizes, [(n, min(size, 2)) for n, size in sizes]))
    held = sum(t.numel() * t.element_size() for t in tensors(system.init_state(1))) if streams and can_stream(system) else 0
    free = free_on(device) + sum(p.numel() * p.element_size() for p in system.parameters() if p.device.type == device.partition(":")[0])
    room = ROOM * free
    fix = "take a smaller model, or a device with more memory"
    if weights + held > room or (jobs == 1 and streams <= 1):
        if precisions and half < weights and half + held < room:
            fix = f"take --dtype bfloat16, which makes {half / GIB:.2f} GiB of the weights"
    elif jobs > 1:
        fix = f"take --jobs {max(1, min(jobs // 2, int(room // (weights + streams * held or 1))))}"
    elif streams > 1:
        fix = f"take --streams {max(1, min(streams // 2, int((room - weights) // held) if held else streams))}"
    asked = f"{jobs} jobs" + (f" of {streams} streams" if streams else "") if jobs > 1 else f"{streams} streams" if streams else "the model"
    state = f" and {held / GIB:.3f} for each stream" if held else ""
    return InputError(
        f"not enough memory on {device} for {asked}: the weights take {weights / GIB:.2f} GiB{state}, beside what is computed, and "
        f"{free / GIB:.1f} are there: {fix} (an estimate)"
    )
