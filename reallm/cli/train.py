"""The verb ``train``."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from reallm.errors import InputError


def train(
    conf: Annotated[Path, typer.Argument(help="Configuration: a file, or a name such as egs/digits/conf/ctc.yaml.")],
    exp: Annotated[Path, typer.Option(help="Experiment folder; a run that was stopped there goes on.")],
    train: Annotated[Path | None, typer.Option(metavar="MANIFEST", help="Training cuts: the key 'train'.")] = None,
    dev: Annotated[Path | None, typer.Option(metavar="MANIFEST", help="Cuts decoded for validation: the key 'dev'.")] = None,
    init: Annotated[Path | None, typer.Option(metavar="BUNDLE|EXP", help="Begin with its weights, where name and shape are equal.")] = None,
    init_part: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Of --init take only this part, such as encoder; several times.")
    ] = None,
    override: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Set a key; give it several times.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: an accelerator if there is one.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Train with so many accelerators, or processes on the CPU, of this machine.")] = 1,
) -> None:
    """Train a system, or go on with its training."""
    overrides = list(override or [])
    overrides += [f"{key}={json.dumps(str(path.resolve()))}" for key, path in (("train", train), ("dev", dev)) if path is not None]
    if devices > 1:
        from reallm.training.devices import check_device
        from reallm.training.processes import launch, launched

        if launched():
            raise InputError(f"--devices {devices}: the launcher that started this process has said how many: leave it away")
        check_device(device, processes=devices)
        command = [sys.executable, "-m", "reallm.cli", "train", str(conf), "--exp", str(exp)]
        command += [word for each in overrides for word in ("--override", each)]
        command += [word for part in init_part or () for word in ("--init-part", part)]
        command += [word for name, value in (("--init", init), ("--device", device)) if value is not None for word in (name, str(value))]
        return launch(devices, command)
    from reallm.training.experiment import run_training
    from reallm.training.processes import is_first

    console = logging.StreamHandler() if is_first() else logging.NullHandler()
    console.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("reallm").addHandler(console)
    result = run_training(conf, exp, overrides, init, device, sys.stderr.isatty(), init_part or ())
    if not is_first():
        return
    if result.resumed_at == result.updates:
        typer.echo(f"{exp}: all {result.epochs} epochs were done already; to train anew, remove it")
    else:
        typer.echo(f"{exp}: trained {result.updates - result.resumed_at} updates, {result.updates} in all")
