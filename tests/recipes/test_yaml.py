"""Every YAML file that comes with the toolkit is without problems."""

from pathlib import Path

import pytest

from reallm.config import check
from reallm.resources import root

FILES = sorted(file for folder in ("hparams", "egs") for file in (root() / folder).rglob("*.yaml") if "exp" not in file.parts)


def test_there_are_some() -> None:
    assert len(FILES) > 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_has_no_problems(file: Path) -> None:
    assert [str(problem) for problem in check(file)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 120
