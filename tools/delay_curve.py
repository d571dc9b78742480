#!/usr/bin/env python3
"""Error rates against delay: delay_curve.py [--at MS]… [--picture FILE] FILE_OR_FOLDER…

Each system's decodings of one split, with several chunk sizes (reallm decode --set encoder.chunk_size=N), delays or
searches, are points of its curve, each the mean over seeds: all of them are in the picture, with their 95 % intervals. One table
compares the systems at the delays --at (default: those of --of); another has a row for each delay that a model was trained for or asked
for, and says of a model of any delay whether it lies inside the interval of the model trained for that delay alone.
Folders are searched for results.json.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results_table import Parser, Read, fail, name_of, no_environment, read_alike, trained_delay

try:
    from reallm.metrics.plots import delay_curves
    from reallm.metrics.tradeoff import Point, frontier, wer_at
except ModuleNotFoundError as missing:
    no_environment(missing)

ANY = " of any delay"


class Way(NamedTuple):
    """One way of decoding a system, the mean over its seeds."""

    point: Point
    low: float  # of the 95 % interval of the error rate, percent
    high: float
    asked: float | None  # seconds that words wait, as the stream asked or the model was trained; None: no such system
    others: str  # all other settings


def curve_name(results: dict[str, Any]) -> str:
    """A model of any delay has a curve of its own, also where it was decoded with the delay that it has by default."""
    name = name_of(results)
    return name + ANY if results.get("training_delays") and not name.endswith(ANY) else name


def asked_delay(results: dict[str, Any]) -> float | None:
    """In seconds; None where the system has no delay, or none knows how long its token period is."""
    chosen = (results.get("settings") or {}).get("delay")
    if chosen is not None or "delay" not in results or "token_period" not in results:
        return None if chosen is None else float(chosen)
    return round(results["delay"] * results["token_period"], 6)


def mean_over_seeds(seeds: list[dict[str, Any]]) -> Way:
    """Of the results of one way."""
    numbers = [(results["emission_delay_ms"]["mean"], results["wer"], *results["wer_ci95"]) for results in seeds]
    delay_ms, wer, low, high = (statistics.mean(values) for values in zip(*numbers, strict=True))
    own = "delay", "compiled"  # the delay has a column, and compiled layers find the same words
    others = {name: value for name, value in (seeds[0].get("settings") or {}).items() if name not in own}
    return Way(Point(delay_ms, wer), low, high, asked_delay(seeds[0]), json.dumps(others, sort_keys=True))


def curves_of(read: Read) -> dict[str, list[Way]]:
    """System → its ways of decoding (and delays trained with), in order of the emission delay.

    Systems that recognized no word, and ways that not all seeds of a system were decoded in, are left out, and said.
    """
    found: dict[str, dict[str, dict[object, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for file, results in read:
        if not results.get("emission_delay_ms"):
            print(f"{file} has no emission delays and is left out")
            continue
        way = json.dumps([results.get("settings") or {}, trained_delay(results)])
        name, seed = curve_name(results), results.get("seed")
        if seed in found[name][way]:
            fail(f"{file}: {name} of seed {seed}, decoded like this, is there already: leave one of them out")
        found[name][way][seed] = results
    curves: dict[str, list[Way]] = {}
    for name, ways in found.items():
        most = max(len(seeds) for seeds in ways.values())
        for way, seeds in ways.items():
            if len(seeds) < most:
                print(f"{name} with {way} was decoded for {len(seeds)} of {most} seeds and is left out")
                continue
            curves.setdefault(name, []).append(mean_over_seeds(list(seeds.values())))
    return {name: sorted(ways, key=lambda way: way.point) for name, ways in curves.items()}


def points_of(ways: list[Way]) -> list[Point]:
    return [way.point for way in ways]


def at_equal_delay(curves: dict[str, list[Way]], delays: list[float]) -> Iterator[str]:
    """What each system reaches within a mean emission delay."""
    yield "| system | " + " | ".join(f"{delay:.0f}" for delay in delays) + " | best (its delay) |\n|---|" + "---|" * (len(delays) + 1)
    for name, ways in sorted(curves.items()):
        cells = ["–" if (wer := wer_at(points_of(ways), delay)) is None else f"{wer:.2f}" for delay in delays]
        best = frontier(points_of(ways))[-1]
        yield f"| {name} | " + " | ".join([*cells, f"{best.wer:.2f} ({best.delay_ms:.0f})"]) + " |"
    yield (
        "\nEach way of decoding is a mean over seeds. Those that another beats in both error rate and delay are left out: chosen by the "
        "error rates of this very split. Between two of them WER is interpolated."
    )


def by_asked_delay(curves: dict[str, list[Way]]) -> Iterator[str]:
    """Every way of the systems that were trained to wait, and models of any delay against those of one; nothing where there are none."""
    rows = [(way.asked, name, way) for name, ways in sorted(curves.items()) for way in ways if way.asked is not None]
    if not rows:
        return
    compares = any(name.endswith(ANY) for _, name, _ in rows)
    last = [" inside that of the model of this delay |", "---|"] if compares else ["", ""]
    yield f"\n| delay, s | system | mean emission delay, ms | WER % (95 %) |{last[0]}\n|---|---|---|---|{last[1]}"
    judged = []
    for asked, name, way in sorted(rows, key=lambda row: row[0]):
        alone = [
            (other_name, other)
            for other_asked, other_name, other in rows
            if name.endswith(ANY) and not other_name.endswith(ANY) and other_name.split()[0] == name.split()[0]
            if abs(other_asked - asked) < 1e-6 and other.others == way.others
        ]
        inside = [other.low <= way.point.wer <= other.high for _, other in alone]
        judged += inside
        verdict = "; ".join("yes" if good else "no" for good in inside) or ("none was trained for it" if name.endswith(ANY) else "–")
        settings = "" if way.others == "{}" else f" with {way.others}"
        wer = f"{way.point.wer:.2f} ({way.low:.2f}–{way.high:.2f})"
        yield f"| {asked:g} | {name}{settings} | {way.point.delay_ms:.0f} | {wer} |{f' {verdict} |' if compares else ''}"
    if judged:
        yield f"\nThe model of any delay lies inside the interval of a model trained for one in {sum(judged)} of {len(judged)} comparisons."


def draw(curves: dict[str, list[Way]], read: Read, title: str) -> Any:
    """All points. What does not stream knows no times of words: it is a line."""
    offline = {curve_name(results) for _, results in read if results.get("times_known") is False}
    drawn = {name: [(*way.point, way.low, way.high) for way in ways] for name, ways in sorted(curves.items()) if name not in offline}
    return delay_curves(
        drawn, {name: min(points_of(curves[name]), key=lambda point: point.wer).wer for name in sorted(offline & curves.keys())}, title
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--at", type=float, action="append", metavar="MS", help="a mean emission delay; give it several times")
    parser.add_argument("--of", default="speech_reallm", metavar="SYSTEM", help="without --at: at the delays of this system")
    parser.add_argument("--period", type=float, metavar="MS", help="the token period of results that do not know theirs (digits: 80)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a .png, .svg or .pdf to write")
    arguments = parser.parse_args()
    read = read_alike(arguments.places)
    splits = sorted({results["split"] for _, results in read})
    if len(splits) > 1:
        fail(f"these results are of {', '.join(splits)}: give those of one split")
    if arguments.period:
        read = [(file, {"token_period": arguments.period / 1000, **results}) for file, results in read]
    curves = curves_of(read)
    own = [point.delay_ms for name, ways in curves.items() if name.partition(" ")[0] == arguments.of for point in frontier(points_of(ways))]
    delays = sorted(set(arguments.at or own))
    if not delays:
        fail(f"--of {arguments.of}: no delays of such a system among {', '.join(curves) or 'nothing'}: name another, or --at")
    print(f"WER % at a mean emission delay of at most … ms, {splits[0]}, {read[0][1]['corpus']['kind']}\n")
    print("\n".join([*at_equal_delay(curves, delays), *by_asked_delay(curves)]))
    if arguments.picture:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(curves, read, splits[0]).savefig(arguments.picture)
        print(f"\n{arguments.picture}")


if __name__ == "__main__":
    main()
