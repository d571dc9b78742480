"""The verb ``train``."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    conf: Annotated[Path, typer.Argument(help="Configuration: a file, or a name such as egs/digits/conf/ctc.yaml.")],
    exp: Annotated[Path, typer.Option(help="Experiment folder; a run that was stopped there goes on.")],
    train: Annotated[Path | None, typer.Option(metavar="MANIFEST", help="Training cuts: the key 'train'.")] = None,
    dev: Annotated[Path | None, typer.Option(metavar="MANIFEST", help="Cuts decoded for validation: the key 'dev'.")] = None,
    init: Annotated[Path | None, typer.Option(metavar="BUNDLE|EXP", help="Begin with its weights, where name and shape are equal.")] = None,
    override: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set a key; give it several times.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: an accelerator if there is one.")] = None,
) -> None:
    """Train a system, or go on with its training."""
    from reallm.training.experiment import run_training

    overrides = list(override or [])
    overrides += [f"{key}={json.dumps(str(path.resolve()))}" for key, path in (("train", train), ("dev", dev)) if path is not None]
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("reallm").addHandler(console)
    result = run_training(conf, exp, overrides, init, device, progressbar=sys.stderr.isatty())
    if result.resumed_at == result.updates:
        typer.echo(f"{exp}: all {result.epochs} epochs were done already")
    else:
        typer.echo(f"{exp}: trained {result.updates - result.resumed_at} updates, {result.updates} in all")
