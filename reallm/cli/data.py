"""``reallm data``: manifests from corpora."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.errors import InputError

app = typer.Typer(help="Make lhotse manifests from a corpus.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Folder that the manifests are written to.")]


def _bar(description: str, total: int | None) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True)
    task = bar.add_task(description, total=total)
    return bar, lambda count: bar.advance(task, count)


@app.command()
def digits(
    out: Out,
    data: Annotated[Path | None, typer.Option(help="The recordings; else $REALLM_DATA/fsdd, a download, or espeak-ng.")] = None,
    seed: Annotated[int, typer.Option(help="Of the training strings.")] = 1,
    train_strings: Annotated[int, typer.Option(min=1, help="Training strings an epoch.")] = 2400,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training strings.")] = 12,
    test_strings: Annotated[int, typer.Option(min=1, help="Test strings; fewer are the first ones of the 1,000.")] = 1000,
    dev_strings: Annotated[int, typer.Option(min=1, help="Development strings.")] = 200,
    held_out_speaker: Annotated[str | None, typer.Option(help="This speaker makes the test, and is nowhere else.")] = None,
    speed: Annotated[list[float] | None, typer.Option(help="Speed factor of training strings; give it several times.")] = None,
    synthetic_voices: Annotated[int, typer.Option(min=0, help="espeak-ng voices mixed into training.")] = 0,
    synthetic_share: Annotated[float, typer.Option(min=0, max=1, help="Share of training strings with such a voice.")] = 0.25,
) -> None:
    """Connected digits, composed of the Free Spoken Digit Dataset's recordings."""
    from reallm.data.corpora.digits import DigitsOptions, prepare

    if data is None and os.environ.get("REALLM_DATA") and (Path(os.environ["REALLM_DATA"]) / "fsdd").is_dir():
        data = Path(os.environ["REALLM_DATA"]) / "fsdd"
    speeds = tuple(speed or [1.0])
    if not all(0.5 <= s <= 2 for s in speeds):
        raise InputError(f"--speed {min(speeds)}…{max(speeds)}: factors from 0.5 to 2 are possible")
    options = DigitsOptions(
        seed, train_strings, epochs, test_strings, dev_strings, held_out_speaker, speeds, synthetic_voices, synthetic_share
    )
    bar, tick = _bar("strings", 2 * test_strings + dev_strings + epochs * train_strings)
    with bar:
        record = prepare(data, out, options, bar.console.print, tick)
    _summary(record)


def _summary(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    kind = "real recordings" if record["real"] else "SYNTHETIC speech"
    table = Table(title=f"{record['corpus']}: {kind}, {record['recordings']} recordings of {len(record['speakers'])} speakers")
    for column in ("manifest", "strings", "hours"):
        table.add_column(column, justify="left" if column == "manifest" else "right")
    for name, sizes in record["splits"].items():
        table.add_row(name, str(sizes["strings"]), f"{sizes['hours']:.2f}")
    console = Console()
    console.print(table)
    if record["skipped"]:
        console.print(f"{len(record['skipped'])} broken recordings were skipped: {', '.join(record['skipped'])}")
