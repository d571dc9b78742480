#!/usr/bin/env python3
"""Error rates at the same delay: delay_curve.py [--at MS]… [--picture FILE] FILE_OR_FOLDER…

Each system's decodings of one split, with several chunk sizes (reallm decode --set encoder.chunk_size=N), delays or
searches, are points of its curve, each the mean over seeds. In a table of all systems at the delays --at (default: those of
--of), and in a picture. Folders are searched for results.json.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from results_table import Parser, Read, fail, name_of, no_environment, read_alike, trained_delay

try:
    from reallm.metrics.plots import delay_curves
    from reallm.metrics.tradeoff import Point, frontier, wer_at
except ModuleNotFoundError as missing:
    no_environment(missing)


def curves_of(read: Read) -> dict[str, list[Point]]:
    """System → a point for each way of decoding (and each delay trained with): the mean over its seeds.

    Systems that recognized no word, and ways that not all seeds of a system were decoded in, are left out, and said.
    """
    found: dict[str, dict[str, dict[object, Point]]] = defaultdict(lambda: defaultdict(dict))
    for file, results in read:
        if not results.get("emission_delay_ms"):
            print(f"{file} has no emission delays and is left out")
            continue
        way = json.dumps([results.get("settings") or {}, trained_delay(results)])
        seeds = found[name_of(results)][way]
        if results.get("seed") in seeds:
            fail(f"{file}: {name_of(results)} of seed {results.get('seed')}, decoded like this, is there already: leave one of them out")
        seeds[results.get("seed")] = Point(results["emission_delay_ms"]["mean"], results["wer"])
    curves: dict[str, list[Point]] = {}
    for name, ways in found.items():
        most = max(len(seeds) for seeds in ways.values())
        for way, seeds in ways.items():
            if len(seeds) < most:
                print(f"{name} with {way} was decoded for {len(seeds)} of {most} seeds and is left out")
                continue
            mean = Point(*(statistics.mean(values) for values in zip(*seeds.values(), strict=True)))
            curves.setdefault(name, []).append(mean)
    return curves


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--at", type=float, action="append", metavar="MS", help="a mean emission delay; give it several times")
    parser.add_argument("--of", default="speech_reallm", metavar="SYSTEM", help="without --at: at the delays of this system")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a .png, .svg or .pdf to write")
    arguments = parser.parse_args()
    read = read_alike(arguments.places)
    splits = sorted({results["split"] for _, results in read})
    if len(splits) > 1:
        fail(f"these results are of {', '.join(splits)}: give those of one split")
    curves = curves_of(read)
    own = [point.delay_ms for name, points in curves.items() if name.partition(" ")[0] == arguments.of for point in frontier(points)]
    delays = sorted(set(arguments.at or own))
    if not delays:
        fail(f"--of {arguments.of}: no delays of such a system among {', '.join(curves) or 'nothing'}: name another, or --at")
    print(f"WER % at a mean emission delay of at most … ms, {splits[0]}, {read[0][1]['corpus']['kind']}\n")
    print("| system | " + " | ".join(f"{delay:.0f}" for delay in delays) + " | best (its delay) |\n|---|" + "---|" * (len(delays) + 1))
    for name, points in sorted(curves.items()):
        cells = ["–" if (wer := wer_at(points, delay)) is None else f"{wer:.2f}" for delay in delays]
        best = frontier(points)[-1]
        print(f"| {name} | " + " | ".join([*cells, f"{best.wer:.2f} ({best.delay_ms:.0f})"]) + " |")
    print(
        "\nEach way of decoding is a mean over seeds. Those that another beats in both error rate and delay are left out: chosen by the "
        "error rates of this very split. Between two of them WER is interpolated."
    )
    if arguments.picture:
        # What does not stream knows no times of words.
        offline = {name_of(results) for _, results in read if results.get("times_known") is False}
        drawn = {name: frontier(points) for name, points in sorted(curves.items()) if name not in offline}
        lines = {name: frontier(curves[name])[-1].wer for name in sorted(offline & curves.keys())}
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        delay_curves(drawn, lines, splits[0]).savefig(arguments.picture)
        print(f"\n{arguments.picture}")


if __name__ == "__main__":
    main()
