"""Counts what makes the processor wait for an accelerator: reading a number, or asking for as many rows as a mask selects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select")


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A mask as an index is a nonzero inside of the operator.
        masked = str(func).startswith("aten.index.") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if str(func).startswith(READS) or masked:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """The names of the operators inside the block that read from the device."""
    with _Counter() as counter:
        yield counter.found
