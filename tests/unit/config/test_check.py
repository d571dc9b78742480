"""What is wrong with a configuration is found without building it."""

from pathlib import Path

import pytest

from reallm.cli import main
from reallm.config import check

GOOD = """
width: 6
epochs: 2
train: !PLACEHOLDER
system: !new:tests.dummies.training.TinySystem
    width: !ref <width>
data: !new:tests.dummies.training.TinyData
    size: 3
training: !new:reallm.training.settings.TrainingSettings
    epochs: !ref <epochs>
    optimizer: !include:optimizer.yaml
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 5
"""
OPTIMIZER = """!name:torch.optim.AdamW
lr: 0.1
weight_decay: 0.01
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "optimizer.yaml").write_text(OPTIMIZER)
    (tmp_path / "conf.yaml").write_text(GOOD)
    return tmp_path / "conf.yaml"


def problems(conf: Path, old: str = "", new: str = "") -> list[str]:
    text = conf.read_text()
    assert old in text
    conf.write_text(text.replace(old, new) if old else text + new)
    return [str(problem) for problem in check(conf)]


def test_a_good_one_has_no_problem(conf: Path) -> None:
    assert check(conf) == []
    assert check(conf.parent / "optimizer.yaml") == []


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("training.TinySystem", "training.TinySistem", "system", "did you mean 'TinySystem'?"),
        ("tests.dummies.training.TinySystem", "reallm.encoders.conformr.ConformerEncodr", "system", "'reallm.encoders.conformer.Conf"),
        ("    width: !ref", "    widht: !ref", "system", "takes no 'widht' (did you mean 'width'?)"),
        ("lr: 0.01", "learning_rte: 0.01", "training.optimizer", "takes no 'learning_rte'"),
        ("lr: 0.01", "weight_decy: 0.01", "training.optimizer", "takes no 'weight_decy' (did you mean 'weight_decay'?)"),
        ("        warmup: 5", "", "training.schedule", "missing a required argument: 'warmup'"),
        ("epochs: 2", "epochs: 2\nepoch: 3", "epoch", "nothing uses this key (did you mean 'epochs'?)"),
        ("width: 6", "width: 6\nwidth: 7", "line 3", "key 'width' is there twice"),
        ("    size: 3", "    size: 3\n    size: 4", "line 9", "key 'size' is there twice"),
        ("optimizer.yaml", "optimiser.yaml", "training.optimizer", "which is not there (did you mean 'optimizer.yaml'?)"),
        ("<width>", "<widht>", "system.width", "refers to 'widht', which is not there (did you mean 'width'?)"),
        ("!ref <width>", "!ref <data.batches>", "system", ""),
        ("!ref <width>", "!applyref:os.getpid", "system.width", "use !apply:"),
        ("!ref <width>", "!apply:tests.dummies.training.TinyData", "system.width", "is a class: use !new:"),
        ("!new:tests.dummies.training.TinyData", "!new:tests.dummies.training.constant_validation", "data", "is not a class"),
        ("width: 6", "width: [6", "line", ""),
    ],
)
def test_says_what_is_wrong_where_and_what_is_near(conf: Path, old: str, new: str, key: str, message: str) -> None:
    found = problems(conf, old, new)
    if (old, new) == ("!ref <width>", "!ref <data.batches>"):
        assert found == [f"{conf}: width: nothing uses this key"], "an attribute of another node is a reference to that node"
        return
    assert len(found) == 1 or key == "system.width", found
    assert any(line.startswith(f"{conf}: {key}") and message in line for line in found), found


def test_an_inclusion_must_come_before_what_refers_to_it(conf: Path) -> None:
    found = problems(conf, "width: 6", "width: 6\nfirst: !ref <second>\nthird: !ref <first>\nsecond: !include:optimizer.yaml")
    assert any("move that above" in line for line in found), found


def test_problems_of_included_files_are_found(conf: Path) -> None:
    (conf.parent / "optimizer.yaml").write_text(OPTIMIZER + "betas: !ref <beta>\n")
    assert "training.optimizer.betas: <beta> refers to 'beta'" in problems(conf)[0]


def test_files_that_include_each_other_are_named(conf: Path) -> None:
    (conf.parent / "optimizer.yaml").write_text(f"a: !include:{conf.name}\n")
    assert "includes this file" in problems(conf)[0]


def test_nothing_is_built(conf: Path, tmp_path: Path) -> None:
    assert problems(conf, "width: 6", f"width: !apply:os.mkdir [{tmp_path}/made]") == []
    assert not (tmp_path / "made").exists()


def test_the_command_prints_problems_and_exits_with_2(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as good:
        main(["config", "check", str(conf), str(conf.parent / "optimizer.yaml")])
    assert not good.value.code
    assert "2 files without problems" in capsys.readouterr().out
    conf.write_text(GOOD.replace("    width:", "    widht:"))
    with pytest.raises(SystemExit) as bad:
        main(["config", "check", str(conf)])
    assert bad.value.code == 2
    assert capsys.readouterr().err.startswith(f"{conf}: system: tests.dummies.training.TinySystem takes no 'widht'")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ctc.yaml").write_text("a: 1")
    with pytest.raises(SystemExit) as bad:
        main(["config", "check", str(tmp_path / "cct.yaml")])
    assert bad.value.code == 2
    assert "did you mean 'ctc.yaml'?" in capsys.readouterr().err
