"""What an experiment was begun with: the --init and the training data that it goes on with are the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reallm.errors import InputError
from reallm.training.experiment import load_trained, run_training
from reallm.training.origin import ORIGIN_NAME
from tests.dummies.training import TinyData, TinySystem

CONFIG = """
system: !new:tests.dummies.training.TinySystem
data: !new:tests.unit.training.test_origin.ListedData
    path: {folder}/train.jsonl
training: !new:reallm.training.settings.TrainingSettings
    epochs: 2
    average: 1
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 2
"""


class ListedData(TinyData):
    """Says where its utterances are listed."""

    def __init__(self, path: str) -> None:
        super().__init__(size=3)
        self.path = Path(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration, its manifest, and two bundles."""
    (tmp_path / "conf.yaml").write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "train.jsonl").write_text("one\n")
    for seed, name in enumerate(("a bundle", "other")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text("{}")
        save_file(TinySystem().state_dict(), tmp_path / name / "model.safetensors")
    return tmp_path


def go(folder: Path, init: str | None = None, exp: str = "exp", parts: Sequence[str] = ()) -> Path:
    where = None if init is None else folder / init
    run_training(folder / "conf.yaml", folder / exp, init=where, device="cpu", progressbar=False, init_parts=parts)
    return folder / exp


def killed(folder: Path, batches: int, init: str | None = None) -> Path:
    """The same, killed after so many batches of three an epoch."""
    left = batches
    whole = TinySystem.loss

    def loss(self: TinySystem, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return whole(self, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TinySystem, "loss", loss)
        go(folder, init)
    assert len(list((folder / "exp/checkpoints").glob("CKPT*"))) == batches // 3
    return folder / "exp"


def weights(exp: Path) -> dict[str, Any]:
    return load_trained(exp, average=1).state_dict()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("batches", [1, 4])
def test_an_init_that_was_forgotten_is_asked_for(folder: Path, batches: int) -> None:
    """Before the first checkpoint and after it."""
    exp = killed(folder, batches, "a bundle")
    before = (exp / ORIGIN_NAME).read_text()
    with pytest.raises(InputError, match=f"exp was begun with --init: add --init '{folder}/a bundle', or"):
        go(folder)
    assert (exp / ORIGIN_NAME).read_text() == before
    resumed, uninterrupted = weights(go(folder, "a bundle")), weights(go(folder, "a bundle", exp="uninterrupted"))
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)


def test_before_the_first_checkpoint_another_init_and_other_data_may_be_given(folder: Path) -> None:
    killed(folder, 2, "a bundle")
    (folder / "train.jsonl").write_text("two\n")
    resumed, expected = weights(go(folder, "other")), weights(go(folder, "other", exp="expected"))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert (folder / "exp" / ORIGIN_NAME).read_text() == (folder / "expected" / ORIGIN_NAME).read_text()


def test_a_checkpoint_does_not_go_on_with_another_init(folder: Path) -> None:
    killed(folder, 4, "a bundle")
    with pytest.raises(InputError, match=r"with the weights of .*/a bundle \(sha256 \w{12}…\), not with .*/other \(sha256 \w{12}…\): put"):
        go(folder, "other")
    with pytest.raises(
        InputError, match=r"with the weights of .*/a bundle \(sha256 \w{12}…\), not with .*/a bundle \(sha256 \w{12}…\): put"
    ):
        go(folder, "a bundle", parts=["encoder"])
    changed = {name: weight + 1 for name, weight in load_file(folder / "a bundle/model.safetensors").items()}
    (folder / "a bundle").rename(folder / "moved")
    go(folder, "moved")
    save_file(changed, folder / "moved/model.safetensors")
    with pytest.raises(InputError, match=r"with the weights of .*/a bundle .*, not with .*/moved"):
        go(folder, "moved")


def test_a_checkpoint_does_not_go_on_with_an_init_that_it_did_not_have(folder: Path) -> None:
    killed(folder, 4)
    with pytest.raises(InputError, match=f"was begun without --init: leave --init {folder}/other away, or name another --exp"):
        go(folder, "other")
    go(folder)


def test_a_checkpoint_does_not_go_on_with_other_training_data(folder: Path) -> None:
    killed(folder, 4)
    (folder / "train.jsonl").write_text("two\n")
    with pytest.raises(
        InputError, match=r"with the training data of .*train.jsonl \(sha256 \w{12}…\), not with .*: put them back, or name"
    ):
        go(folder)
    (folder / "train.jsonl").write_text("one\n")
    go(folder)


def test_a_checkpoint_does_not_go_on_with_another_number_of_processes(folder: Path) -> None:
    exp = killed(folder, 4)
    recorded = (exp / ORIGIN_NAME).read_text()
    (exp / ORIGIN_NAME).write_text(recorded.replace('"processes": 1', '"processes": 2'))
    with pytest.raises(InputError, match=r"was begun with 2 processes, not with 1: go on with --devices 2 \(or as many by torchrun\), or"):
        go(folder)
    (exp / ORIGIN_NAME).write_text(recorded)
    go(folder)


def test_checkpoints_of_which_nobody_knows_where_they_came_from(folder: Path) -> None:
    exp = killed(folder, 4)
    (exp / ORIGIN_NAME).write_text('{"init": null')
    with pytest.raises(InputError, match=r"origin\.json is damaged"):
        go(folder)
    (exp / ORIGIN_NAME).unlink()
    go(folder)
    assert (
        f"{exp} was begun by a version that wrote no origin.json: taken to have begun as this command says"
        in (exp / "train.log").read_text()
    )
    with pytest.raises(InputError, match="was begun without --init"):
        go(folder, "other")
