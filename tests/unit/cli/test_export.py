"""``reallm export``: from an experiment folder to a bundle, with a model card that says what must be said."""

import json
from pathlib import Path
from typing import Any

import torch

from reallm.bundle import load, load_system
from tests.dummies.command import run


def weights(exp: Path, update: int) -> dict[str, torch.Tensor]:
    return dict(torch.load(exp / "checkpoints" / f"CKPT+{update:08d}" / "system.ckpt", weights_only=True))


def test_export(exp: Path, tmp_path: Path, capsys: Any) -> None:
    options = ["--training-data", "noise", "--license", "CC0", "--full-precision"]
    assert run("export", exp, "--out", tmp_path / "bundle", *options) == 0
    assert "parameters" in capsys.readouterr().out
    for name, weight in load(tmp_path / "bundle").state_dict().items():
        first, second = weights(exp, 1)[name], weights(exp, 2)[name]
        assert torch.allclose(weight, (first + second) / 2 if weight.is_floating_point() else second)
    assert run("export", exp, "--out", tmp_path / "last", "--average", 1, *options) == 0
    assert all(torch.equal(weight, weights(exp, 2)[name]) for name, weight in load(tmp_path / "last").state_dict().items())
    card = (tmp_path / "last" / "README.md").read_text()
    assert "# exp (ctc)" in card
    assert "| training data | noise |" in card
    assert "| seed | 7 |" in card
    assert load_system(exp, average=1).state_dict().keys() == load(tmp_path / "last").state_dict().keys()


def test_the_card_is_filled_from_the_corpus(exp: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    known = {"corpus": "fsdd", "real": True, "licence": "CC BY-SA 4.0", "mixed_into_training": "a robot's voice"}
    (tmp_path / "data" / "corpus.json").write_text(json.dumps(known))
    assert run("export", exp, "--out", tmp_path / "bundle") == 0
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "| training data | fsdd (real recordings) and a robot's voice |" in card
    assert "| licence | CC BY-SA 4.0 |" in card


def test_what_is_missing_is_named(exp: Path, tmp_path: Path, capsys: Any) -> None:
    assert run("export", tmp_path, "--out", tmp_path / "bundle") == 2
    assert "is no experiment" in capsys.readouterr().err
    assert run("export", exp, "--out", tmp_path / "bundle") == 2
    assert "--training-data" in capsys.readouterr().err
    assert run("export", exp, "--out", tmp_path / "bundle", "--training-data", "noise") == 2
    assert "--license" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
