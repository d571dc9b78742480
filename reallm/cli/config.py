"""The verb ``config``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True, help="Look at configuration files.")


@app.callback()
def config() -> None:
    """Look at configuration files."""


@app.command("check")
def check_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files, or names such as hparams/…")],
    override: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set a key; give it several times.")] = None,
) -> None:
    """Check YAML files: one line a problem on standard error, and exit code 2 when there is any.

    Keys, names and values are compared with what the classes take. Then components, and settings of reallm, are built, without weights
    and without reading files, so that they judge their values and how they fit; what takes a path, such as the data, is not built.
    """
    from reallm.config import check
    from reallm.config.document import find_file, parse_overrides, read

    problems = [
        problem
        for file in map(find_file, files)
        for problem in check(file, parse_overrides(override, read(file), file) if override else None)
    ]
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(2)
    typer.echo(f"{len(files)} file{'' if len(files) == 1 else 's'} without problems")
