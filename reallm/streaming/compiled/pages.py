"""Weights that are read again and again, in few large pages of memory.

A processor looks up where a page lies before it reads from it, and pages of 4 kB are too many for it to remember: a third of the bandwidth
goes for that (tools/bench/LOG.md). Linux gives pages of 2 MB to those that ask.
"""

import contextlib
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

LARGE = 2 << 20  # bytes of a page
LINE = 64  # bytes that each tensor is aligned to


def in_large_pages(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of ``tensors`` (…), which share one stretch of memory: in large pages on Linux, where it has such, else in ordinary ones."""
    sizes = [-(-tensor.nbytes // LINE) * LINE for tensor in tensors]
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}  # shared memory gets none
    pages = mmap.mmap(-1, sum(sizes) + 2 * LARGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=torch.uint8)  # which holds ``pages``
    at, copies = -memory.data_ptr() % LARGE, list[Tensor]()
    for tensor, size in zip(tensors, sizes, strict=True):
        copies.append(memory[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor))
        at += size
    return copies
