"""``reallm train`` as users type it."""

import json
import sys
from pathlib import Path

import pytest

from reallm.cli import main

CONFIG = """
train: !PLACEHOLDER
dev:
size: 3
system: !new:tests.dummies.training.TinySystem
data: !new:tests.dummies.training.TinyData
    size: !ref <size>
training: !new:reallm.training.settings.TrainingSettings
    epochs: 2
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 2
"""


def reallm(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf.yaml").write_text(CONFIG)
    return tmp_path / "conf.yaml"


def test_train_and_train_again(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", conf, "--exp", tmp_path / "exp: 1", "--train", tmp_path / "a: #b", "--override", "size=2", "--device", "cpu"]
    code, out, err = reallm(capsys, *command)
    assert code == 0, err
    assert "trained 4 updates, 4 in all" in out
    assert json.dumps(str(tmp_path / "a: #b"))[1:-1] in (tmp_path / "exp: 1/config.yaml").read_text(), "any path can be given"
    code, out, err = reallm(capsys, *command)
    assert code == 0, err
    assert "all 2 epochs were done already" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--override", "sise=2"], "has no key 'sise' (did you mean 'size'?)"),
        (["--dev", "nowhere.jsonl"], "no manifest"),
        (["--init", "nowhere"], "nowhere is neither a bundle"),
        (["--init-part", "encoder"], "--init-part encoder: of which --init?"),
        (["--device", "gpu"], "device 'gpu'"),
        (["--device", "gpu", "--devices", "2"], "device 'gpu'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    code, _, err = reallm(capsys, "train", conf, "--exp", tmp_path / "exp", "--train", "t", *args)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "exp/config.yaml").exists()


def test_processes_are_told_what_the_command_was(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[list[str]] = []
    monkeypatch.setattr("reallm.training.processes.launch", lambda processes, command: launched.append([str(processes), *command]))
    said = ["--override", "size=2", "--init-part", "encoder", "--init-part", "frontend", "--init", "teacher", "--device", "cpu"]
    code, _, err = reallm(capsys, "train", conf, "--exp", tmp_path / "exp", *said, "--devices", "2")
    assert code == 0, err
    assert launched == [["2", sys.executable, "-m", "reallm.cli", "train", str(conf), "--exp", str(tmp_path / "exp"), *said]]


def test_a_launched_process_launches_no_others(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    code, _, err = reallm(capsys, "train", conf, "--exp", tmp_path / "exp", "--train", "t", "--devices", "2")
    assert code == 2
    assert "--devices 2: the launcher that started this process has said how many" in err


def test_a_placeholder_must_be_given(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = reallm(capsys, "train", conf, "--exp", tmp_path / "exp")
    assert code == 2
    assert "'train' is a !PLACEHOLDER" in err
