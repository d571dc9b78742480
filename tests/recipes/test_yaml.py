"""Every YAML file that comes with the toolkit is without problems."""

import shutil
import subprocess
from pathlib import Path

import pytest

from reallm.config import check
from reallm.resources import root


def files_of(folder: Path) -> list[Path]:
    """Those of a checkout, but not what runs wrote: egs/RECIPE/exp, exp.ctc and so on. The checkout itself may lie below any name."""
    found = (file for kind in ("hparams", "egs") for file in (folder / kind).rglob("*.yaml"))
    return sorted(file for file in found if not any(part.startswith("exp") for part in file.relative_to(folder).parts))


FILES = files_of(root())


@pytest.mark.parametrize("count", [len(FILES)], ids=lambda count: f"{count}-files")
def test_all_are_checked(count: int) -> None:
    """pytest -v says how many, in the name of this test."""
    assert count >= 93, "so many there were when this was written: some are not found"
    if not (root() / ".git").exists() or shutil.which("git") is None:
        pytest.skip(f"no git, or no checkout: {count} files are checked, how many there should be is not known")
    command = ["git", "-C", str(root()), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.yaml", "*.yml"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    assert sorted(root() / name for name in known if (root() / name).exists()) == FILES
    assert count == len(set(FILES))


def test_what_runs_wrote_is_not_judged_and_a_clone_may_lie_anywhere(tmp_path: Path) -> None:
    names = ["hparams/encoder/a.yaml", "egs/x/conf/b.yaml", "egs/x/exp/config.yaml", "egs/x/exp.ctc/ctc/config.yaml"]
    clone = tmp_path / "exp/clone"
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    assert files_of(clone) == sorted(clone / name for name in names[:2])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_has_no_problems(file: Path) -> None:
    assert [str(problem) for problem in check(file)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 120
