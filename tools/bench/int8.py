#!/usr/bin/env python3
"""What int8 weights cost in words, and bring in time: bench/int8.py MANIFEST [--model DIR] [--utterances N] [--json FILE]

    reallm data digits --data DIR --out work --train-strings 1 --epochs 1
    tools/bench/int8.py work/test.jsonl.gz --json int8.json

The model, and the same one with int8 weights (reallm/layers/int8_linear.py; reallm transcribe --int8), both with compiled layers too
(reallm/streaming/compiled; --compiled), hear each utterance in turns, one stream at a time, which begins before the clock does. A repeat
is all utterances; words are counted once, since each repeat finds the same.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import _measure
import numpy as np
import torch
from _models import weight_bytes

from reallm.bundle import load_shared, published
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.errors import at_least
from reallm.layers.int8_linear import with_int8_weights
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.recognizer import Recognizer


def main() -> None:
    parser = _measure.parser(__doc__, repeats=3, configs=())
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--utterances", type=int, default=200, help="the first ones of the manifest")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    at_least(1, **{"--utterances": arguments.utterances})
    cuts = [cut for cut, _ in zip(read_cuts(arguments.manifest), range(arguments.utterances), strict=False)]
    system: Any = load_shared(arguments.model or published())
    system.to(arguments.device, getattr(torch, arguments.dtype))
    models = {arguments.dtype: system, "int8": with_int8_weights(copy.deepcopy(system))}
    if arguments.dtype == "float32":
        models |= {f"{name} compiled": with_compiled_layers(copy.deepcopy(model)) for name, model in models.items()}
    recognizers = {name: Recognizer(model) for name, model in models.items()}
    timer, said = _measure.Timer.of(arguments), {name: list[str]() for name in models}
    taken = {name: np.zeros(arguments.repeats) for name in models}
    for cut in cuts:
        samples = load_audio(cut, system.sample_rate)
        sides = {name: lambda r=recognizer, s=samples: hear(r, s, timer) for name, recognizer in recognizers.items()}
        for name, turns in _measure.alternate(sides, arguments.repeats).items():
            taken[name] += [seconds for _, seconds in turns]
            said[name].append(turns[0][0])
    report.note(utterances=len(cuts))
    spreads = {name: _measure.Spread.of(seconds, 1000 / sum(cut.duration for cut in cuts)) for name, seconds in taken.items()}
    for name, texts in said.items():
        count = ErrorCounts()
        for cut, text in zip(cuts, texts, strict=True):
            count.add(align_words(text_of(cut).split(), text.split()))
        report.row(
            side=name,
            words=count.words,
            errors=count.errors,
            wer_percent=count.wer,
            ms_a_second=spreads[name],
            ratio=spreads[name].median / spreads[arguments.dtype].median,
            weights_mb=weight_bytes(models[name]) / 2**20,
            utterances_with_other_words=sum(one != other for one, other in zip(texts, said[arguments.dtype], strict=True)),
        )


def hear(recognizer: Recognizer, samples: np.ndarray, timer: _measure.Timer) -> tuple[str, float]:
    """What one stream says, and its seconds."""
    texts: list[str] = []
    with recognizer.stream() as stream:

        def listen() -> None:
            stream.accept_waveform(samples, recognizer.system.sample_rate)
            texts.append(stream.finish().text)

        seconds = timer(listen)
    return texts[0], seconds


if __name__ == "__main__":
    main()
