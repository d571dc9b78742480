#!/usr/bin/env python3
"""What the systems of hparams/systems keep for the backward pass, a second of audio, under bf16 autocast: what bounds a batch.

    tools/bench/kept.py --json kept.json

Utterances of 15 s with four pieces a second, counted on the CPU: tensors that autograd saves for three of them, less those for one,
which takes off what does not grow with the batch, such as the weights in bf16. The lattice of a transducer grows with the square of an
utterance's length; what the others keep does not.
"""

import argparse
from typing import Any

import _measure
import numpy as np
import torch
from _models import VOCABULARY, build, parameters
from train import made

from reallm.errors import InputError

SYSTEMS = ("speech_reallm", "ctc", "transducer", "decoder_only", "aed", "aed_240m")


def main() -> None:
    parser = _measure.parser(__doc__, repeats=1)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each utterance")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    if not arguments.seconds > 0:
        raise InputError(f"--seconds {arguments.seconds}: above 0")
    for name in arguments.systems:
        if name not in SYSTEMS:
            raise InputError(f"--systems '{name}': of {', '.join(SYSTEMS)}")
        torch.manual_seed(0)
        system = build(arguments.config, name).to(arguments.device).train()
        one, three = (kept(system, count, arguments) for count in (1, 3))
        megabytes = (three - one) / 1e6 / (2 * arguments.seconds)
        report.row(system=name, million_parameters=parameters(system) / 1e6, mb_a_second=megabytes)


def kept(system: Any, utterances: int, arguments: argparse.Namespace) -> float:
    """Bytes for a batch."""
    batch = made(np.full(utterances, arguments.seconds), VOCABULARY[arguments.config]).to(arguments.device)
    with torch.autocast(torch.device(arguments.device).type, torch.bfloat16):
        return _measure.kept_for_backward(system, lambda: system.loss(batch)[0])


if __name__ == "__main__":
    main()
