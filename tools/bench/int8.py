#!/usr/bin/env python3
"""What int8 weights cost in words, and bring in time: bench/int8.py MANIFEST [--model DIR] [--utterances N] [--json FILE]

    reallm data digits --data DIR --out work --train-strings 1 --epochs 1
    tools/bench/int8.py work/test.jsonl.gz --json int8.json

The model, and the same one with int8 weights (reallm/layers/int8_linear.py), hear each utterance in turns, one stream at a time.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import _measure

from reallm.bundle import load, published
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.errors import InputError
from reallm.layers.int8_linear import with_int8_weights
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.recognizer import Recognizer


def main() -> None:
    parser = _measure.parser(__doc__, repeats=1, configs=("digits",))
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--utterances", type=int, default=200, help="the first ones of the manifest")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    cuts = [cut for cut, _ in zip(read_cuts(arguments.manifest), range(arguments.utterances), strict=False)]
    if not cuts:
        raise InputError(f"{arguments.manifest}: no utterances")
    system: Any = load(arguments.model or published()).eval()
    sides = {"float32": system, "int8": with_int8_weights(copy.deepcopy(system))}
    timer, seconds = _measure.Timer.of(arguments), sum(cut.duration for cut in cuts)
    counts = {name: ErrorCounts() for name in sides}
    texts: dict[str, list[str]] = {name: [] for name in sides}
    taken = dict.fromkeys(sides, 0.0)
    for cut in cuts:
        samples = load_audio(cut, system.sample_rate)
        for name, model in sides.items():
            begun = timer.now()
            stream = Recognizer(model).stream()
            stream.accept_waveform(samples, system.sample_rate)
            texts[name].append(stream.finish().text)
            taken[name] += timer.now() - begun
            counts[name].add(align_words(text_of(cut).split(), texts[name][-1].split()))
    changed = sum(one != other for one, other in zip(*texts.values(), strict=True))
    report.note(utterances=len(cuts), utterances_with_other_words=changed)
    for name, count in counts.items():
        ratio = taken[name] / taken["float32"]
        report.row(side=name, words=count.words, errors=count.errors, wer=count.wer, ms_a_second=1000 * taken[name] / seconds, ratio=ratio)


if __name__ == "__main__":
    main()
