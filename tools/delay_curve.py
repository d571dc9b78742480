#!/usr/bin/env python3
"""Error rates at the same delay: delay_curve.py [--at MS]… [--picture FILE] FILE_OR_FOLDER…

Each system's decodings of one split, with several chunk sizes (reallm decode --set encoder.chunk_size=N), delays or
searches, are points of its curve. In a table of all systems at the delays --at (default: those of --of), and in a picture.
Runs of several seeds are averaged. Folders are searched for results.json.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from results_table import name_of, read_alike

from reallm.metrics.plots import delay_curves
from reallm.metrics.tradeoff import Point, frontier, wer_at


def curves_of(read: list[tuple[Path, dict[str, Any]]]) -> dict[str, dict[Any, list[Point]]]:
    """System → seed → points; those of systems that recognized no word are left out, and said."""
    curves: dict[str, dict[Any, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for file, results in read:
        if results.get("emission_delay_ms"):
            point = Point(results["emission_delay_ms"]["mean"], results["wer"])
            curves[name_of(results)][results.get("seed")].append(point)
        else:
            print(f"{file} has no emission delays and is left out")
    return curves


def mean_at(seeds: dict[Any, list[Point]], delay_ms: float) -> float | None:
    found = [wer_at(points, delay_ms) for points in seeds.values()]
    known = [wer for wer in found if wer is not None]
    return statistics.mean(known) if len(known) == len(found) else None


def mean_curve(seeds: dict[Any, list[Point]]) -> list[tuple[float, float]]:
    """Delays that some seed has and all can keep, and the mean error rate at each."""
    delays = sorted({point.delay_ms for points in seeds.values() for point in frontier(points)})
    return [(delay, wer) for delay in delays if (wer := mean_at(seeds, delay)) is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--at", type=float, action="append", metavar="MS", help="a mean emission delay; give it several times")
    parser.add_argument("--of", default="speech_reallm", metavar="SYSTEM", help="without --at: at the delays of this system")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a .png, .svg or .pdf to write")
    arguments = parser.parse_args()
    read = read_alike(arguments.places)
    splits = sorted({results["split"] for _, results in read})
    if len(splits) > 1:
        parser.error(f"these results are of {', '.join(splits)}: give those of one split")
    curves = curves_of(read)
    own = [mean_curve(seeds) for name, seeds in curves.items() if name.partition(" ")[0] == arguments.of]
    delays = sorted(arguments.at or {delay for curve in own for delay, _ in curve})
    if not delays:
        parser.error(f"--of {arguments.of}: no delays of such a system among {', '.join(curves) or 'nothing'}: name another, or --at")
    print(f"WER % at a mean emission delay of at most … ms, {splits[0]}, {read[0][1]['corpus']['kind']}\n")
    print("| system | " + " | ".join(f"{delay:.0f}" for delay in delays) + " | best (its delay) |\n|---|" + "---|" * (len(delays) + 1))
    for name, seeds in sorted(curves.items()):
        cells = ["–" if (wer := mean_at(seeds, delay)) is None else f"{wer:.2f}" for delay in delays]
        last = [frontier(points)[-1] for points in seeds.values()]
        cells.append(f"{statistics.mean(p.wer for p in last):.2f} ({statistics.mean(p.delay_ms for p in last):.0f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.picture:
        # What does not stream knows no times of words.
        offline = {name_of(results) for _, results in read if results.get("times_known") is False}
        drawn = {name: mean_curve(seeds) for name, seeds in sorted(curves.items()) if name not in offline}
        lines = {name: mean_curve(curves[name])[-1][1] for name in sorted(offline & curves.keys())}
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        delay_curves(drawn, lines, splits[0]).savefig(arguments.picture)
        print(f"\n{arguments.picture}")


if __name__ == "__main__":
    main()
