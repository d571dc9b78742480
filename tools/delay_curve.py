#!/usr/bin/env python3
"""Error rates against delay: delay_curve.py [--at MS]… [--against SYSTEM [--by speaker]] [--picture FILE] FILE_OR_FOLDER…

Each system's decodings of one split, with several chunk sizes (reallm decode --set encoder.chunk_size=N), delays or
searches, are points of its curve, each the mean over seeds: all of them are in the picture, with their 95 % intervals,
and a line through those that no other of the system beats in both. One table
compares the systems at the delays --at (default: those of --of). With --against, another has each system's difference to that one at
these delays: between two decodings, an utterance's errors are mixed from those in both as the error rate is interpolated, and the same
utterances are drawn for both systems. It needs the hyps.jsonl beside each results.json; --by speaker also the manifests that were
decoded. The last has a row for each delay that a model was trained for or asked for, and says of a model of any delay whether it
lies inside the interval of the model trained for that delay alone. Folders are searched for results.json.
"""

import argparse
import functools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from results_table import Parser, Read, add_comparison, drawn, fail, name_of, no_environment, parse, read_alike, trained_delay

try:
    from reallm.errors import InputError
    from reallm.metrics.paired import Errors, compare, group_errors, mean_errors, mix_errors
    from reallm.metrics.plots import delay_curves
    from reallm.metrics.tradeoff import Point, frontier, weights_at, wer_at
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
    folders: list[Path]  # of each seed


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


def mean_over_seeds(runs: Read) -> Way:
    """Of the results of one way."""
    seeds = [results for _, results in runs]
    numbers = [(results["emission_delay_ms"]["mean"], results["wer"], *results["wer_ci95"]) for results in seeds]
    delay_ms, wer, low, high = (statistics.mean(values) for values in zip(*numbers, strict=True))
    own = "delay", "compiled"  # the delay has a column, and compiled layers find the same words
    others = {name: value for name, value in (seeds[0].get("settings") or {}).items() if name not in own}
    folders = [file.parent for file, _ in runs]
    return Way(Point(delay_ms, wer), low, high, asked_delay(seeds[0]), json.dumps(others, sort_keys=True), folders)


def curves_of(read: Read) -> dict[str, list[Way]]:
    """System → its ways of decoding (and delays trained with), in order of the emission delay.

    Systems that recognized no word, and ways that not all seeds of a system were decoded in, are left out, and said.
    """
    found: dict[str, dict[str, dict[object, tuple[Path, dict[str, Any]]]]] = defaultdict(lambda: defaultdict(dict))
    for file, results in read:
        if not results.get("emission_delay_ms"):
            print(f"{file} has no emission delays and is left out")
            continue
        way = json.dumps([results.get("settings") or {}, trained_delay(results)])
        name, seed = curve_name(results), results.get("seed")
        if seed in found[name][way]:
            fail(f"{file}: {name} of seed {seed}, decoded like this, is there already: leave one of them out")
        found[name][way][seed] = (file, results)
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


def compared_with(curves: dict[str, list[Way]], against: str) -> str:
    """The system that --against names; one of any delay by its whole name, where there is also one of one delay."""
    found = [name for name in curves if against in (name, name.partition(" ")[0])]
    found = [name for name in found if not name.endswith(ANY)] or found
    if len(found) != 1:
        fail(f"--against '{against}': {len(found) or 'no'} such systems with delays, which are of {', '.join(curves) or 'none'}")
    return found[0]


errors_of = functools.cache(group_errors)  # a decoding is next to several delays


def errors_at(ways: list[Way], delay: float, by: Any) -> Errors | None:
    """Of each utterance, recording or speaker within a mean emission delay, the mean over the seeds; None where it cannot be so fast."""
    weights = weights_at(points_of(ways), delay)
    if weights is None:
        return None
    mixed = [(weight, way) for weight, way in zip(weights, ways, strict=True) if weight]
    means = [mean_errors([errors_of(folder, by) for folder in way.folders]) for _, way in mixed]
    return mix_errors(means, [weight for weight, _ in mixed])


def difference(errors: Errors | None, other: Errors | None) -> str:
    """A cell: points, and their interval; a dash where one of the two cannot be so fast."""
    if errors is None or other is None:
        return "–"
    points, low, high, _ = compare(errors, other)
    return f"{points:+.2f} ({low:+.2f} to {high:+.2f})"


def differences_at(curves: dict[str, list[Way]], delays: list[float], reference: str, by: str, over: str) -> Iterator[str]:
    """Each system's error rate less that of ``reference`` at the same delay, by paired bootstrap over what ``over`` names."""
    yield f"\n| WER % − that of {reference}, points (95 %) | " + " | ".join(f"{delay:.0f}" for delay in delays) + " |"
    yield "|---|" + "---|" * len(delays)
    for name in sorted(curves.keys() - {reference}):
        try:
            cells = [difference(errors_at(curves[name], delay, by), errors_at(curves[reference], delay, by)) for delay in delays]
        except InputError as error:
            fail(f"{name} and {reference}: {error}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    alike = "" if by == "speaker" else ", nor that the words of one speaker are alike"
    yield (
        f"\n95 %: by paired bootstrap over the {over} of the test, with the same ways of decoding and shares in all draws. That these were "
        f"chosen on this split is not in it; nor how much another seed of the training would change{alike}."
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
    add_comparison(parser, "each system's difference to this one at the same delays")
    parser.add_argument("--period", type=float, metavar="MS", help="the token period of results that do not know theirs (digits: 80)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a .png, .svg or .pdf to write")
    arguments = parse(parser)
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
    lines = [
        f"WER % at a mean emission delay of at most … ms, {splits[0]}, {read[0][1]['corpus']['kind']}\n",
        *at_equal_delay(curves, delays),
    ]
    if arguments.against:
        reference = compared_with(curves, arguments.against)
        lines += differences_at(curves, delays, reference, arguments.by, drawn(read, arguments.by))
    print("\n".join([*lines, *by_asked_delay(curves)]))
    if arguments.picture:
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(curves, read, splits[0]).savefig(arguments.picture)
        print(f"\n{arguments.picture}")


if __name__ == "__main__":
    main()
