"""The options ``--jobs`` and ``--dask``."""

from typing import Annotated

import typer

Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes that share the work.")]
Dask = Annotated[
    str | None, typer.Option("--dask", metavar="ADDRESS", help="A dask scheduler whose workers do the work; they see the same files.")
]
