"""Tensors moved to large pages: the same numbers, in one stretch of memory, whatever the system has."""

import mmap
from typing import Any

import pytest
import torch
from torch import nn

from reallm.streaming.compiled.linear import PackedLinear
from reallm.streaming.compiled.pages import LARGE, LINE, in_large_pages
from reallm.streaming.compiled.system import with_compiled_layers


class RefusedPages(mmap.mmap):
    def madvise(self, *arguments: Any) -> None:
        raise OSError(22, "Invalid argument")


@pytest.mark.parametrize("kernel", ["as it is", "refuses", "knows none"])
def test_in_large_pages(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel == "refuses":
        monkeypatch.setattr(mmap, "mmap", RefusedPages)
    if kernel == "knows none":
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
        monkeypatch.delattr(mmap, "MAP_ANONYMOUS", raising=False)
    given = [
        torch.randn(300, 7),
        torch.randint(-128, 127, (5,), dtype=torch.int8),
        torch.randn(0),
        torch.randn(3, 4).t(),
        torch.randn(LARGE),
    ]
    copies = in_large_pages(given)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copies, given, strict=True))
    first = copies[0].data_ptr()
    assert first % LARGE == 0 and all(copy.data_ptr() % LINE == 0 for copy in copies if copy.numel())
    assert copies[-1].data_ptr() + copies[-1].nbytes - first < sum(copy.nbytes for copy in given) + len(given) * LINE
    copies[0].zero_()
    assert torch.equal(copies[1], given[1]) and not torch.equal(copies[0], given[0])
    assert in_large_pages([]) == []


def test_packed_weights_of_a_system_lie_there() -> None:
    layers = with_compiled_layers(nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5)).eval())
    first, second = (layer.weight for layer in layers if isinstance(layer, PackedLinear))
    assert first.data_ptr() % LARGE == 0 and first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
