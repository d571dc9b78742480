"""What is free is what the kernel would still give, and a lack of it is known by torch's words."""

import math
from pathlib import Path

import pytest
import torch

from reallm import memory

LEFT = 2**30  # what MemAvailable says


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **group: str) -> None:
    """One with that much memory, and a control group of these files."""
    (folder / "meminfo").write_text(f"MemTotal:       16000000 kB\nMemAvailable:   {LEFT // 1024} kB\nHugePages_Total:       0\n")
    for name, content in group.items():
        (folder / f"memory.{name}").write_text(content + "\n")
    monkeypatch.setattr(memory, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(memory, "CONTROL_GROUP", folder)


@pytest.mark.parametrize(
    ("most", "taken", "stat", "free"),
    [
        (5000, 4000, "anon 4000", 1000),
        (5000, 4900, "anon 1000\nfile 3900\nactive_file 700\ninactive_file 3200\nslab_reclaimable 100", 3400),
        ("max", 4900, "anon 4900", LEFT),
        (2 * LEFT, 100, "anon 100", LEFT),
    ],
    ids=["programs", "files-that-were-read", "no-limit", "the-machine-has-less"],
)
def test_a_container_has_what_its_limit_leaves_and_what_can_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | str, taken: int, stat: str, free: int
) -> None:
    machine(tmp_path, monkeypatch, max=str(most), current=str(taken), stat=stat)
    assert memory.free_memory() == free


def test_without_a_group_the_machine_decides_and_without_it_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < memory.free_memory() < 2**50
    machine(tmp_path, monkeypatch)
    assert memory.free_memory() == LEFT
    (tmp_path / "meminfo").unlink()
    assert memory.free_memory() == math.inf


def test_what_torch_says() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50)
    assert memory.ran_out(refused.value) and memory.ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert not memory.ran_out(RuntimeError("shapes do not fit"))


def test_what_this_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = memory.resident_memory()
    held = torch.ones(2**24)  # more than malloc ever takes from memory that was given back
    after = memory.resident_memory()
    assert before is not None and after is not None and 0 < before[0] <= before[1] <= after[1] and after[1] >= after[0] > 2**24
    assert after[0] - before[0] > 2**25, "64 MiB more, whatever else was given back"
    del held
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\tmany kB\n")
    for name in ("status", "none"):
        monkeypatch.setattr(memory, "STATUS", tmp_path / name)
        assert memory.resident_memory() is None
