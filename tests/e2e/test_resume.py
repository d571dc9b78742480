"""A run that is killed five times ends with the very weights of one that is not."""

import random
from pathlib import Path

import pytest

from tests.dummies.experiments import CONFIG, ROOT, assert_equal, journal, newest, run_python

# A child that begins at a checkpoint has at least this many of each left to do, whatever the kills before.
MOST = {"batch": 8, "save": 3, "fsync": 12, "rename": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration and the uninterrupted run, by the command that users type."""
    folder = tmp_path_factory.mktemp("resume")
    conf = folder / "conf.yaml"
    conf.write_text(CONFIG)
    run_python("-m", "reallm.cli", "train", str(conf), "--exp", str(folder / "whole"), "--device", "cpu")
    return conf, folder / "whole"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_five_times_ends_with_bit_equal_weights(whole: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    conf, uninterrupted = whole
    draw = random.Random(seed)
    places = ["batch", *draw.sample(["batch", "save", "fsync", "rename"], 4)]
    kills = [f"{place}:{draw.randint(1, MOST[place])}" for place in places]
    exp = tmp_path / "killed"
    said = run_python(str(ROOT / "tests/e2e/killed_training.py"), "1", str(conf), str(exp), *kills, "never:0")
    assert said.count("killed") == 5, said
    assert said.count("finished") == 1, said
    assert_equal(newest(exp), newest(uninterrupted))
    assert journal(exp) == journal(uninterrupted)
    assert not list((exp / "checkpoints").glob(".*")), "something half-written was left"
