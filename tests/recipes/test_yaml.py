"""Every YAML file that comes with the toolkit is without problems."""

import shutil
import subprocess
from pathlib import Path

import pytest

from reallm.config import check
from reallm.resources import root


def files_of(folder: Path) -> list[Path]:
    """Those of a checkout, but not what runs wrote. The checkout itself may lie below any name."""
    found = (file for kind in ("hparams", "egs") for file in (folder / kind).rglob("*.yaml"))
    return sorted(file for file in found if not written(file.relative_to(folder)))


def known_of(folder: Path) -> list[Path]:
    """Those that git knows or would take, likewise."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.yaml", "*.yml"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    return sorted(folder / name for name in names if (folder / name).exists() and not written(Path(name)))


def written(file: Path) -> bool:
    """Whether a run wrote a file of a checkout: egs/RECIPE/exp, exp.ctc and so on, beside the recipe or where its caller stood."""
    return any(part.startswith("exp") for part in file.parts)


FILES = files_of(root())


@pytest.mark.parametrize("count", [len(FILES)], ids=lambda count: f"{count}-files")
def test_all_are_checked(count: int) -> None:
    """pytest -v says how many, in the name of this test."""
    assert count >= 93, "so many there were when this was written: some are not found"
    if not (root() / ".git").exists() or shutil.which("git") is None:
        pytest.skip(f"no git, or no checkout: {count} files are checked, how many there should be is not known")
    assert known_of(root()) == FILES
    assert count == len(set(FILES))


def test_what_runs_wrote_is_not_judged_and_a_clone_may_lie_anywhere(tmp_path: Path) -> None:
    names = ["hparams/encoder/a.yaml", "egs/x/conf/b.yaml", "egs/x/exp/config.yaml", "egs/x/exp.ctc/ctc/config.yaml"]
    names += ["exp/config.yaml", "exp.full/ctc/config.yaml", "egs/x/sub/exp.small/config.yaml"]
    clone = tmp_path / "exp/clone"
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    assert files_of(clone) == sorted(clone / name for name in names[:2])
    if shutil.which("git") is None:
        pytest.skip("no git: what it would take of what runs wrote is not known")
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    assert known_of(clone) == files_of(clone)
    if (root() / ".gitignore").exists():
        shutil.copy(root() / ".gitignore", clone)
        others = ["git", "-C", str(clone), "ls-files", "--others", "--exclude-standard", "exp*", "egs/x/exp*"]
        assert subprocess.run(others, capture_output=True, text=True, check=True).stdout == "", "a run's folders are not for git"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_has_no_problems(file: Path) -> None:
    assert [str(problem) for problem in check(file)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(root())))
def test_is_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 120
