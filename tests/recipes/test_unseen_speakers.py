"""egs/digits/unseen_speakers.sh: a run for each speaker, with a `reallm` that only notes it, and then the table."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dummies.recipe import ROOT, run


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_the_table_is_made_by_the_environment_once_all_is_scored(recipe: Path) -> None:
    top, script = recipe.parents[2], recipe.parent / "unseen_speakers.sh"
    shutil.copy(ROOT / "tools/results_table.py", top / "tools")
    # The environment, as path.sh brings it: its python notes that it was taken. The system's own cannot run the tool.
    (top / "venv").mkdir()
    (top / "venv/python").write_text('#!/bin/sh\necho "the environment\'s python: ${1##*/}" && shift && echo "$*"\n')
    (top / "venv/python").chmod(0o755)
    (top / "tools/results_table.py").chmod(0o644)
    recipe.with_name("path.sh").write_text(f"PATH={top / 'venv'}:$PATH\n")

    def go(*options: str) -> subprocess.CompletedProcess[str]:
        return run(script, "--exp", str(top / "exp"), "--data", "somewhere", "--speakers", "theo lucas", "--teacher", "rnnt", *options)

    decoded = [top / "exp" / speaker / system / "decode" for speaker in ("theo", "lucas") for system in ("speech_reallm", "transducer")]
    for folder in decoded:
        folder.mkdir(parents=True)
    early = go("--stop-stage", "decode")
    assert (early.returncode, early.stderr) == (0, "") and early.stdout.endswith("no table yet: the stage score is not done\n")
    done = go()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"the environment's python: results_table.py\n--mean {' '.join(map(str, decoded))}\n"), "the teacher's own"
