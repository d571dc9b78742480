"""``reallm align``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.cli._workers import Dask, Jobs
from reallm.errors import InputError


def align(
    system: Annotated[Path, typer.Argument(help="The teacher: an experiment (its checkpoints are taken, else its bundle) or a bundle.")],
    cuts: Annotated[Path, typer.Option(help="Manifest of the cuts to align.")],
    out: Annotated[Path, typer.Option(help="Manifest to write; its report lies beside it, as NAME.report.json.")],
    aligner: Annotated[
        str | None,
        typer.Option(help="A component of kind 'aligner'; default: the one that fits the teacher, such as rnnt for a transducer."),
    ] = None,
    backend: Annotated[str, typer.Option(help="Engine of the ctc and rnnt aligners: auto, k2 or torch.")] = "auto",
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Histories that the reallm aligner keeps for each speech embedding and number of tokens; default: 4."),
    ] = None,
    ctm: Annotated[Path | None, typer.Option(help="Take word times from this CTM file, with --aligner ctm.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="TYPE=PATH", help="Carry the times over to the tokens of another tokenizer, such as word=words.json."),
    ] = None,
    offset_from: Annotated[
        Path | None, typer.Option(help="Report whose constant offsets are taken off in this report's word errors, such as that of dev.")
    ] = None,
    batch_seconds: Annotated[
        float,
        typer.Option(
            metavar="S", help="Seconds of audio that are aligned at a time, at most, padding included: of memory, not of results."
        ),
    ] = 300.0,
    device: Annotated[str, typer.Option(help="Where the teacher runs: cpu, cuda, …")] = "cpu",
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Find when each token of a manifest was spoken, with the scores of a trained teacher or from a CTM file."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from reallm.aligners.corpus import align_manifest, fitting_aligner, report_of
    from reallm.aligners.report import describe
    from reallm.bundle import load_teacher
    from reallm.cli._memory import memory_told
    from reallm.cli.tokenizer import load_tokenizer
    from reallm.jobs import Workers
    from reallm.registry import find

    if ctm is not None and aligner != "ctm":
        raise InputError(f"--ctm {ctm} is for --aligner ctm: add it, or leave --ctm out")
    if ctm is None and aligner == "ctm":
        raise InputError("--aligner ctm needs --ctm FILE")
    if not batch_seconds > 0:
        raise InputError(f"--batch-seconds {batch_seconds:g}: give the seconds of audio that are aligned at a time, above 0")
    workers = Workers(jobs, dask)
    engine = _engine(find("aligner", aligner), backend, beam, ctm) if aligner is not None else None
    offsets = _offsets(offset_from) if offset_from else None
    target = load_tokenizer(tokenizer) if tokenizer else None
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} is not here ({str(error).splitlines()[0]}): name cpu, or a device that is") from None
    teacher: Any = load_teacher(system)
    with memory_told(teacher, device, workers.jobs):
        teacher = teacher.to(place).eval()
    engine = engine or _engine(fitting_aligner(teacher), backend, beam, ctm)

    columns = (TextColumn("aligning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("align", total=None)
        with memory_told(teacher, device, workers.jobs, dask=dask):
            report = align_manifest(
                cuts,
                out,
                teacher,
                engine,
                place,
                offsets,
                lambda count, total: bar.update(task, completed=count, total=total),
                target,
                workers,
                batch_seconds,
            )
    for line in [*describe(report), f"{out}, report in {report_of(out)}"]:
        typer.echo(line)


def _engine(aligner: Any, backend: str, beam: int | None, ctm: Path | None) -> Any:
    """An aligner of a class, with the options that were given. Raises InputError for one that it has no use for."""
    import inspect

    given = {"backend": None if backend == "auto" else backend, "beam": beam, "path": ctm}
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if name not in inspect.signature(aligner).parameters:
            raise InputError(f"--{name} {value} is not for the aligner '{aligner.component_name}': leave it out")
    return aligner(**options)


def _offsets(path: Path) -> dict[str, float]:
    """The constants fitted by an earlier run. Raises InputError for a report without word errors."""
    from reallm.aligners.corpus import read_report

    report = read_report(path) or {}
    errors = {side: report.get(f"word_{side}_error_ms") for side in ("begin", "end")}
    found = {side: float(error["offset"]) for side, error in errors.items() if error}
    if len(found) < len(errors):
        raise InputError(f"{path} is not the report of an alignment with true word times: name one that `reallm align` wrote")
    return found
