"""A recipe in a tree of its own, with a `reallm` and a `python` in place of the real ones; and what its configurations build."""

import inspect
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent.name for path in ROOT.glob("egs/*/run.sh"))
REFUSAL = "reallm: error: something is wrong: mend it"

# Counts its calls, and refuses the one whose number is in $REFUSED.
REALLM = f"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
[ "$(wc -l <"$CALLS")" != "$REFUSED" ] || {{ echo "{REFUSAL}" >&2; exit "$STATUS"; }}
"""


def copy_recipe(name: str, top: Path) -> Path:
    """Its run.sh below ``top``, which needs no set-up."""
    folder = top / "egs" / name
    shutil.copytree(ROOT / "egs" / name, folder, ignore=shutil.ignore_patterns("exp*", "data", "downloads"))
    (top / "tools").mkdir()
    for tool in ("parse_options.sh", "stages.sh"):
        shutil.copy(ROOT / "tools" / tool, top / "tools")
    (folder / "path.sh").write_text("")
    if "\ntext=" in (folder / "run.sh").read_text():
        (top / "data/text").mkdir(parents=True)
    (top / "bin").mkdir()
    for name in ("reallm", "python"):
        (top / "bin" / name).write_text(REALLM)
        (top / "bin" / name).chmod(0o755)
    return folder / "run.sh"


def run(recipe: Path, *options: str, refused: int = 0, status: int = 2, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it; the call whose number is ``refused`` ends with REFUSAL and exit code ``status``."""
    top = recipe.parents[2]
    environment = {**os.environ, "PATH": f"{top / 'bin'}:{os.environ['PATH']}", "CALLS": str(top / "calls")}
    environment |= {"REFUSED": str(refused), "STATUS": str(status)}
    environment.pop("REALLM_DATA", None)
    if (top / "data").is_dir():  # no recordings, but text to speak
        environment["REALLM_DATA"] = str(top / "data")
    return subprocess.run(["bash", str(recipe), *options], env=environment, capture_output=True, text=True, cwd=cwd)


def calls(script: Path, *options: str) -> list[str]:
    """What it calls: one line each, without the folders of the test."""
    top = script.parents[2]
    (top / "calls").unlink(missing_ok=True)
    done = run(script, *options)
    assert done.returncode == 0, done.stderr
    return [line.replace(f"{script.parent}/", "") for line in (top / "calls").read_text().splitlines()]


def write_pieces(folder: Path) -> Path:
    """A tokenizer of 18 pieces."""
    import sentencepiece

    text = folder / "text"
    text.write_text("\n".join(f"{first} {second}" for first in ("ONE", "TWO", "SIX") for second in ("CATS", "DOGS", "BIRDS")))
    sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / "pieces"), vocab_size=18, minloglevel=2)
    return folder / "pieces.model"


def arguments_of(component: Any) -> dict[str, Any]:
    """The arguments that a component was made with, defaults included."""
    from reallm.registry import spec_of

    made = inspect.signature(type(component)).bind(**spec_of(component).kwargs)
    made.apply_defaults()
    return dict(made.arguments)


def built_on_meta(conf: Path, pieces: Path) -> Any:
    """The system of a configuration, whose weights have shapes alone."""
    import torch

    from reallm.config import load

    with torch.device("meta"):
        return load(conf, [f"tokenizer_path={pieces}"]).build("system")["system"]
