"""How much memory is free, and what says that there is none left. Without torch, which the command line does not wait for."""

import math
from pathlib import Path

MEMINFO, CONTROL_GROUP, STATUS = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/status")
RECLAIMED = ("inactive_file", "slab_reclaimable")  # of memory.stat: what the kernel gives back before it refuses anybody memory


def ran_out(error: RuntimeError) -> bool:
    """Whether ``error`` says that there is no memory left. It is torch's; that of the CPU's allocator has no type of its own."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def free_memory() -> float:
    """Bytes that this process may still take; infinite where the system does not say.

    Of the limit of a control group (version 2), what it counts as taken holds files that were read; those that can be dropped are free.
    """
    try:
        free = float(1024 * _numbers(MEMINFO)["MemAvailable:"])
    except (OSError, KeyError, ValueError):
        return math.inf
    try:
        taken, most = (int((CONTROL_GROUP / f"memory.{name}").read_text()) for name in ("current", "max"))
        held = _numbers(CONTROL_GROUP / "memory.stat")
    except (OSError, ValueError):  # no control group, or one without a limit
        return free
    return min(free, float(most - taken + sum(held.get(name, 0) for name in RECLAIMED)))


def resident_memory() -> tuple[int, int] | None:
    """Bytes that this process holds, and the most that it ever held; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        now, most = (1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError, ValueError):
        return None
    return now, most


def _numbers(file: Path) -> dict[str, int]:
    """The name and the number that each line begins with."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {line[0]: int(line[1]) for line in lines}
