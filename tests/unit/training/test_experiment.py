"""Experiment folders from the outside."""

import fcntl
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reallm import device_memory
from reallm.errors import InputError
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.experiment import load_trained, read_config, run_training
from reallm.types import Batch
from tests.dummies.data import write_corpus
from tests.dummies.training import TinyData, TinySystem


class Reader(TinySystem):
    """A system with a tokenizer."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.tokenizer = CharacterTokenizer.tiny()


class Greedy(TinySystem):
    """Has no memory for a batch of more than two utterances, of two seconds each."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        if len(batch.ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(batch)


class TimedData(TinyData):
    """With as many utterances of two seconds in a batch as there is room for."""

    def __init__(self, max_duration: float) -> None:
        super().__init__(size=3, rows=int(max_duration // 2))
        self.max_duration = max_duration


CONFIG = """
epochs: 2
width: 6
system: !new:tests.dummies.training.TinySystem
    width: !ref <width>
data: !new:tests.dummies.training.TinyData
    size: 3
training: !new:reallm.training.settings.TrainingSettings
    epochs: !ref <epochs>
    average: 2
    keep: 2
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 2
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf.yaml").write_text(CONFIG)
    return tmp_path / "conf.yaml"


def go(conf: Path, *overrides: str, **options: Path) -> Path:
    exp = conf.parent / "exp"
    run_training(conf, exp, overrides, device="cpu", progressbar=False, **options)
    return exp


def test_a_trained_system_is_the_average_of_the_last_checkpoints(conf: Path) -> None:
    exp = go(conf, "epochs=3")
    system = load_trained(exp)
    assert isinstance(system, torch.nn.Module)
    assert not system.training
    ends = [torch.load(exp / f"checkpoints/CKPT+0000000{update}+end/system.ckpt")["head.weight"] for update in (6, 9)]
    torch.testing.assert_close(system.get_parameter("head.weight").detach(), (ends[0] + ends[1]) / 2)
    last = load_trained(exp, average=1)
    assert torch.equal(last.get_parameter("head.weight"), ends[1])
    assert read_config(exp).value("training", "epochs") == 3


def test_another_configuration_is_refused(conf: Path) -> None:
    exp = go(conf)
    with pytest.raises(InputError, match=r"begun with another configuration \(.*is 7, not 2\): name another --exp"):
        go(conf, "epochs=7")
    assert read_config(exp).value("epochs") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs: 2", "epochs: 0"), "epochs is 0: at least 1"),
        (("system:", "sistem:"), "nothing uses this key .did you mean 'system'"),
        (("epochs: 2", "epochs: 2\ndev: nowhere.jsonl.gz"), "no manifest nowhere.jsonl.gz: run the data stage first"),
        (("!new:reallm.training.settings.TrainingSettings", "!new:builtins.dict"), "training is a dict: it must be !new:reallm.training"),
    ],
)
def test_a_wrong_configuration_leaves_nothing(conf: Path, change: tuple[str, str], message: str) -> None:
    conf.write_text(CONFIG.replace(*change))
    with pytest.raises(InputError, match=message):
        go(conf)
    assert not (conf.parent / "exp").exists()


def test_what_is_advised_of_a_batch_that_does_not_fit_can_be_typed(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_memory, "resident_memory", lambda: None)
    here = "tests.unit.training.test_experiment."
    data = f"data: !new:{here}TimedData\n    max_duration: !ref <batch_seconds>\nbatch_seconds: 9"
    conf.write_text(CONFIG.replace("tests.dummies.training.TinySystem", f"{here}Greedy"))
    conf.write_text(conf.read_text().replace("data: !new:tests.dummies.training.TinyData\n    size: 3", data))
    with pytest.raises(InputError, match=r"a batch of 4 utterances, 8\.0 seconds .* --override batch_seconds=4\.0 \(now 9\), with") as said:
        go(conf)
    advised = str(said.value).partition("--override ")[2].split()[0]
    run_training(conf, conf.parent / "another", [advised], device="cpu", progressbar=False)
    assert read_config(conf.parent / "another").value("data", "max_duration") == 4.0


def test_data_that_cannot_be_trained_on_leave_nothing(conf: Path) -> None:
    manifest = write_corpus(conf.parent) / "train.jsonl.gz"
    data = f"!new:reallm.data.dataset.TrainingData\n    {{cuts: {manifest}, sample_rate: 8000, seed: 1, max_duration: 9, tokenizer: abc}}"
    conf.write_text(CONFIG.replace("!new:tests.dummies.training.TinyData\n    size: 3", data))
    conf.write_text(conf.read_text().replace("!new:tests.dummies.training.TinySystem", "!new:tests.unit.training.test_experiment.Reader"))
    with pytest.raises(InputError, match="has no token alignment: run `reallm align`"):
        go(conf)
    assert not (conf.parent / "exp").exists()


def test_a_first_try_that_failed_does_not_bind_the_next(conf: Path) -> None:
    stranger = conf.parent / "stranger"
    stranger.mkdir()
    (stranger / "bundle.json").write_text("{}")
    save_file({"decoder": torch.zeros(2)}, stranger / "model.safetensors")
    with pytest.raises(InputError, match="no weight has the name"):
        go(conf, init=stranger)
    assert not (conf.parent / "exp/config.yaml").exists()
    go(conf, "width=7")


def test_the_first_weights_may_be_those_of_another_experiment(conf: Path) -> None:
    first = go(conf)
    trained = load_trained(first)
    first.rename(conf.parent / "first")
    second = go(conf, "epochs=1", init=conf.parent / "first")
    moved = load_trained(second).get_parameter("head.weight") - trained.get_parameter("head.weight")
    assert 0 < float(moved.abs().max()) < 0.05, "it began where the first one ended"


def test_two_processes_cannot_train_in_one_folder(conf: Path) -> None:
    exp = conf.parent / "exp"
    exp.mkdir()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with (exp / ".lock").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            os.write(writer, b"locked")
            signal.pause()
    os.read(reader, 6)
    try:
        with pytest.raises(InputError, match="another process is training in"):
            go(conf)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    go(conf)


def test_no_experiment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        load_trained(tmp_path)


def test_nothing_whole_to_go_on_from_is_an_error(conf: Path) -> None:
    exp = go(conf)
    for file in (exp / "checkpoints").glob("*/system.ckpt"):
        file.write_bytes(b"")
    before = (exp / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"all checkpoints in .* are damaged: remove the folder"):
        go(conf, "width=7")
    assert (exp / "config.yaml").read_text() == before
