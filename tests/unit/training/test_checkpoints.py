"""Checkpoints are whole or absent."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reallm.errors import InputError
from reallm.training.checkpoints import WholeCheckpointer, is_whole, load_weights, whole_checkpoints


class Counter:
    """Stands for the Brain: of it the checkpointer reads the number of updates."""

    def __init__(self) -> None:
        self.optimizer_step = 0

    def state_dict(self) -> dict[str, int]:
        return {"optimizer_step": self.optimizer_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.optimizer_step = state["optimizer_step"]


def load(obj: torch.nn.Module | Counter, path: Path, end_of_epoch: bool) -> None:
    obj.load_state_dict(torch.load(path))


class Run:
    def __init__(self, exp: Path, keep: int = 3) -> None:
        self.system = torch.nn.Linear(4, 4)
        self.system.register_buffer("steps", torch.tensor(0))
        self.brain = Counter()
        self.checkpointer = WholeCheckpointer(exp / "checkpoints", keep)
        self.checkpointer.add_recoverable("brain", self.brain, custom_load_hook=load)
        self.checkpointer.add_recoverable("system", self.system)

    def save(self, update: int, end_of_epoch: bool = False) -> None:
        self.brain.optimizer_step = update
        with torch.no_grad():
            self.system.weight.fill_(update)
            self.system.steps.fill_(update)
        self.checkpointer.save_and_keep_only(end_of_epoch=end_of_epoch)

    def resumed(self) -> int:
        self.checkpointer.recover_if_possible()
        return self.brain.optimizer_step


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def names(exp: Path) -> list[str]:
    return sorted(os.listdir(exp / "checkpoints"))


def test_the_newest_ones_are_kept_one_an_update(run: Run, tmp_path: Path) -> None:
    for update in (1, 2, 3, 4):
        run.save(update)
    run.save(4, end_of_epoch=True)
    assert names(tmp_path) == ["CKPT+00000002", "CKPT+00000003", "CKPT+00000004+end"]
    assert Run(tmp_path).resumed() == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "checksums", "meta"])
def test_a_damaged_one_is_passed_over_for_the_one_before(run: Run, tmp_path: Path, damage: str) -> None:
    run.save(7)
    run.save(8)
    newest = tmp_path / "checkpoints/CKPT+00000008"
    file = newest / {"checksums": "checksums.json", "meta": "CKPT.yaml"}.get(damage, "system.ckpt")
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    else:
        file.write_bytes(content[: len(content) // 2])
    assert not is_whole(newest)
    again = Run(tmp_path)
    assert again.resumed() == 7
    assert again.system.weight[0, 0].item() == 7
    again.save(8)
    assert is_whole(newest), "the damaged one was replaced"


def test_all_of_them_damaged_is_an_error(run: Run, tmp_path: Path) -> None:
    run.save(1)
    (tmp_path / "checkpoints/CKPT+00000001/system.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="are damaged: remove the folder"):
        Run(tmp_path).resumed()


def test_what_a_kill_left_is_ignored_and_removed(run: Run, tmp_path: Path) -> None:
    run.save(1)
    for leftover in (".writing-00000002", ".deleting-CKPT+00000000"):
        (tmp_path / "checkpoints" / leftover).mkdir()
        (tmp_path / "checkpoints" / leftover / "system.ckpt").write_text("half")
    assert Run(tmp_path).resumed() == 1
    assert names(tmp_path) == ["CKPT+00000001"]


@pytest.fixture
def little_room() -> Iterator[None]:
    """The operating system refuses files of more than 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_the_one_before(run: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run.save(1)
    request.getfixturevalue("little_room")
    with pytest.raises(
        InputError, match=r"the disk is full: checkpoint .*CKPT\+00000002 was not written \(File too large\); the one of update 1 is whole"
    ):
        run.save(2)
    assert names(tmp_path) == ["CKPT+00000001"]
    assert Run(tmp_path).resumed() == 1


def test_a_full_disk_at_fsync_leaves_the_one_before(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left on device"):
            run.save(2)
    assert names(tmp_path) == ["CKPT+00000001"]
    run.save(2)
    assert Run(tmp_path).resumed() == 2


def test_another_error_is_not_called_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(OSError, match="Input/output"):
        run.save(2)


def test_weights_are_averaged_over_the_last_ones(run: Run, tmp_path: Path) -> None:
    for update in (1, 2, 6):
        run.save(update)
    run.save(6, end_of_epoch=True)
    assert float(load_weights(tmp_path, 1)["weight"][0, 0]) == 6
    assert float(load_weights(tmp_path, 2)["weight"][0, 0]) == 4
    averaged = load_weights(tmp_path, 10)
    assert float(averaged["weight"][0, 0]) == 3
    assert averaged["weight"].dtype == torch.float32
    assert averaged["steps"] == 6, "what is counted is not averaged"


def test_as_many_are_averaged_as_the_configuration_says(run: Run, tmp_path: Path) -> None:
    for update in (1, 2, 6):
        run.save(update)
    (tmp_path / "config.yaml").write_text("training: !new:x.Y\n  average: 2\n")
    assert float(load_weights(tmp_path)["weight"][0, 0]) == 4
    (tmp_path / "config.yaml").write_text("training: !new:x.Y\n  epochs: 2\n")
    assert float(load_weights(tmp_path)["weight"][0, 0]) == 3, "the default is 3"


def test_damaged_ones_are_not_averaged(run: Run, tmp_path: Path) -> None:
    run.save(1)
    run.save(3)
    (tmp_path / "checkpoints/CKPT+00000003/system.ckpt").write_bytes(b"")
    assert float(load_weights(tmp_path, 2)["weight"][0, 0]) == 1
    assert [path.name for path in whole_checkpoints(tmp_path / "checkpoints")] == ["CKPT+00000001"]


def test_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        load_weights(tmp_path, 3)
