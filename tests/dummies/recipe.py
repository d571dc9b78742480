"""A recipe in a tree of its own, with a `reallm` and a `python` in place of the real ones."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent.name for path in ROOT.glob("egs/*/run.sh"))
REFUSAL = "reallm: error: something is wrong: mend it"

# Counts its calls, and refuses the one whose number is in $REFUSED.
REALLM = f"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
[ "$(wc -l <"$CALLS")" != "$REFUSED" ] || {{ echo "{REFUSAL}" >&2; exit 2; }}
"""


def copy_recipe(name: str, top: Path) -> Path:
    """Its run.sh below ``top``, which needs no set-up."""
    folder = top / "egs" / name
    shutil.copytree(ROOT / "egs" / name, folder, ignore=shutil.ignore_patterns("exp*", "data", "downloads"))
    (top / "tools").mkdir()
    for tool in ("parse_options.sh", "stages.sh"):
        shutil.copy(ROOT / "tools" / tool, top / "tools")
    (folder / "path.sh").write_text("")
    (top / "bin").mkdir()
    for name in ("reallm", "python"):
        (top / "bin" / name).write_text(REALLM)
        (top / "bin" / name).chmod(0o755)
    return folder / "run.sh"


def run(recipe: Path, *options: str, refused: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs it; the call whose number is ``refused`` ends with REFUSAL."""
    top = recipe.parents[2]
    environment = {**os.environ, "PATH": f"{top / 'bin'}:{os.environ['PATH']}", "CALLS": str(top / "calls"), "REFUSED": str(refused)}
    environment.pop("REALLM_DATA", None)
    return subprocess.run(["bash", str(recipe), *options], env=environment, capture_output=True, text=True)


def calls(script: Path, *options: str) -> list[str]:
    """What it calls: one line each, without the folders of the test."""
    top = script.parents[2]
    (top / "calls").unlink(missing_ok=True)
    done = run(script, *options)
    assert done.returncode == 0, done.stderr
    return [line.replace(f"{script.parent}/", "") for line in (top / "calls").read_text().splitlines()]
