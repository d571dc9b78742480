#!/usr/bin/env python3
"""Runs a command and prints the most memory that it and all its children held at once (Linux).

    tools/bench/peak_memory.py egs/digits/run.sh --data DIR

Memory is the proportional set size: pages that processes share are counted once. It is read every second. The exit status
is the command's.
"""

import subprocess
import sys
import time
from pathlib import Path


def children_of() -> dict[int, list[int]]:
    """Process → the processes that it started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    return children


def held_by(root: int) -> int:
    """Bytes of ``root`` and everything below it."""
    children, waiting, total = children_of(), [root], 0
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    process = subprocess.Popen(sys.argv[1:])
    peak = 0
    while process.poll() is None:
        peak = max(peak, held_by(process.pid))
        time.sleep(1.0)
    print(f"peak memory: {peak / 1e9:.2f} GB")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
