"""A streaming system as a folder of programs that run without this package."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reallm.data.files import atomic_folder
from reallm.errors import InputError
from reallm.exporting.description import describe
from reallm.exporting.formats import ROWS, WRITERS, Run, trace
from reallm.exporting.programs import NEXT, Program, programs_of
from reallm.protocols import System

DESCRIPTION = "programs.json"
TOLERANCE = 1e-3  # of numbers of about 1
CHECKED_STEPS = 4


@torch.no_grad()
def largest_difference(program: Program, run: Run, batch: int, steps: int = CHECKED_STEPS) -> float:
    """How far outputs and states of ``run`` are from the program's at most, over the steps of a few streams, relative to what exceeds 1.

    Rows rest, end and begin anew at random. Infinite where truth values, whole numbers or names differ.
    """
    generator = torch.Generator().manual_seed(0)
    largest, begin = 0.0, program.initial(batch)
    states = others = begin
    for _ in range(steps):
        inputs = program.example(batch, generator)
        wanted, found = program({**inputs, **states}), run({**inputs, **others})
        if wanted.keys() != found.keys():
            return float("inf")
        for name, value in wanted.items():
            if not value.is_floating_point():
                largest = largest if torch.equal(value, found[name]) else float("inf")
            elif value.numel():
                largest = max(largest, float(((value - found[name]).abs() / value.abs().clamp(min=1)).max()))
        ended = inputs.get("final", torch.zeros(batch, dtype=torch.bool))
        states, others = (
            {name: torch.where(ended.view(-1, *[1] * (one.dim() - 1)), one, after[NEXT + name]) for name, one in begin.items()}
            for after in (wanted, found)
        )
    return largest


def export_programs(system: System, path: Path, kind: str, about: Mapping[str, Any], streams: int | None = None) -> float:
    """Write the steps of ``system`` into the folder ``path``, which appears whole; programs that were there are replaced.

    Args:
        system: of speech_reallm, transducer or ctc, in eval mode, on the CPU.
        path: the folder: programs, and ``programs.json``, which says what a client has to know.
        kind: of ``WRITERS``.
        about: entries of ``programs.json``, such as the licence.
        streams: so many streams at a time; None = any number.

    Returns the largest difference of the programs, run from their files, from PyTorch. Raises InputError for a system that cannot be
    exported, for programs that do not compute the same, or a folder that is there and holds no programs.
    """
    path = Path(path)
    if path.exists() and not (path / DESCRIPTION).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there and holds no programs: choose another folder")
    suffix, write = WRITERS[kind]
    batch, largest, written = streams or ROWS, 0.0, {}
    with atomic_folder(path, replace=True) as folder:
        for program in programs_of(system):
            inputs = {**program.example(batch, torch.Generator().manual_seed(0)), **program.initial(batch)}
            with torch.no_grad():
                outputs = program(inputs)
            file = program.name + suffix
            run = write(trace(program, inputs, streams), folder / file, inputs, outputs)
            difference = largest_difference(program, run, batch)
            if not difference < TOLERANCE:
                raise InputError(
                    f"the {program.name} program differs from PyTorch by {difference:g}: this system cannot be exported as {kind}"
                )
            largest = max(largest, difference)
            written[file] = (program, inputs, outputs)
        description = describe(system, written, {**about, "kind": kind, "streams": streams})
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return largest
