"""``reallm report``: an experiment as one page with pictures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.errors import InputError


def report(
    exp: Annotated[Path, typer.Argument(metavar="EXP", help="The experiment; decodings are found below it.")],
    out: Annotated[Path | None, typer.Option("--out", help="The folder to write; default: EXP/report.")] = None,
    teacher: Annotated[Path | None, typer.Option(metavar="EXP_OR_BUNDLE", help="Draw this teacher's alignment of the utterance.")] = None,
    utterance: Annotated[str | None, typer.Option(help="The utterance to draw; default: one of middle length.")] = None,
) -> None:
    """Make a folder with training curves, one utterance, delays, errors by length and speaker, and an error table."""
    if not exp.is_dir():
        raise InputError(f"{exp}: no such experiment folder: train first")
    from reallm.metrics.report import write_report
    from reallm.training.journal import read_journal

    files = write_report(exp, out or exp / "report", read_journal(exp), _teacher(teacher) if teacher else None, utterance)
    for file in files:
        typer.echo(str(file))


def _teacher(path: Path) -> Any:
    """The tokens of a cut, as the teacher in ``path`` aligns them."""
    from reallm.aligners.corpus import align_cuts, describe_run, fitting_aligner
    from reallm.bundle import load_teacher
    from reallm.data.alignments import token_alignment
    from reallm.types import Word

    system: Any = load_teacher(path)
    aligner: Any = fitting_aligner(system)(backend="torch")  # one utterance: not worth a worker's start

    def tokens(cut: Any) -> list[Word]:
        aligned, _ = align_cuts([cut], system, aligner, describe_run(system, aligner))
        alignment = token_alignment(aligned[0], system.sample_rate) if aligned else None
        if alignment is None:
            return []
        pieces = [system.tokenizer.decode([token]) or " " for token in alignment.token_ids.tolist()]
        return [Word(piece, start, end) for piece, start, end in zip(pieces, alignment.start.tolist(), alignment.end.tolist(), strict=True)]

    return tokens
