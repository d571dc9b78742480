"""Tables and pictures of clocks: report_clock.py NAME=FILE… --out FOLDER, where FILE is what `clock.py run` wrote."""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pictures import panels

from reallm.data.files import atomic_write
from reallm.metrics.plots import BLUE, DASHES, GREY, INK, ORANGE, style

Stream = dict[str, Any]
PROMPTS = {"told": "k told as a number", "shown": "one interval shown"}
KINDS = {True: ("trained k", BLUE), False: ("k never trained", ORANGE)}


class Kept(NamedTuple):
    """How a stream kept time over its first inputs."""

    due: int  # ticks
    said: int
    first_wrong: int | None  # input at which the first interval that was wrong ended, or would have; None = all were right
    drift: int | None  # inputs by which the last tick was late (early: below 0) against its own number times k; None = no tick


def kept(stream: Stream, inputs: int) -> Kept:
    """Its first ``inputs`` inputs. A tick that is missing at the end makes the last interval a wrong one."""
    k, ticks = stream["k"], [tick for tick in stream["ticks"] if tick <= inputs]
    intervals = [now - before for before, now in zip([0, *ticks], ticks, strict=False)]
    wrong = [tick for tick, interval in zip(ticks, intervals, strict=True) if interval != k]
    last = ticks[-1] if ticks else 0
    if inputs - last >= k:
        wrong.append(last + k)
    return Kept(inputs // k, len(ticks), min(wrong, default=None), ticks[-1] - k * len(ticks) if ticks else None)


def numbers(found: Sequence[Kept]) -> list[str]:
    """The cells of a row that are counted."""
    errors = [100 * abs(one.said - one.due) / one.due for one in found]
    drifts = [abs(one.drift) for one in found if one.drift is not None]
    return [
        str(len(found)),
        f"{sum(one.first_wrong is None for one in found)}",
        f"{sum(one.said for one in found)} / {sum(one.due for one in found)}",
        f"{statistics.mean(errors):.2f} / {max(errors):.1f}",
        f"{statistics.median(drifts):g} / {max(drifts)}" if drifts else "no ticks",
    ]


def caption(clocks: dict[str, Any]) -> str:
    """How each clock was made."""
    return "\n".join(
        f"{name}: {training_of(clock.get('training'))}; run at {clock.get('git', 'unknown')}." for name, clock in clocks.items()
    )


def training_of(training: dict[str, Any] | None) -> str:
    """In words; None: it was not written down."""
    if training is None:
        return "how it was trained is unknown"
    return (
        f"{training['updates']} updates in {training['seconds']:.0f} s by the clock, seed {training['seed']}, at commit {training['git']}"
    )


def table(clocks: dict[str, Any], lengths: Sequence[int]) -> str:
    """A row for each clock, prompt, k trained or never trained, and kind of inputs."""
    head = [
        "clock",
        "prompt",
        "k",
        "inputs",
        "× training length",
        "streams",
        "all intervals right",
        "ticks said / due",
        "count error %: mean / worst",
    ]
    head += ["drift, inputs: median / worst"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, clock in clocks.items():
        for prompt in PROMPTS:
            for trained, (kind, _) in KINDS.items():
                for noise in sorted({stream["noise"] for stream in clock["streams"]}):
                    chosen = [s for s in clock["streams"] if (s["prompt"], s["trained"], s["noise"]) == (prompt, trained, noise)]
                    about = [name, prompt, kind.removesuffix(" k").removeprefix("k "), f"noise {noise:g}" if noise else "identical"]
                    for length in lengths:
                        inputs = length * clock["trained_inputs"]
                        if chosen and inputs <= clock["inputs"]:
                            cells = [*about, str(length), *numbers([kept(stream, inputs) for stream in chosen])]
                            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_errors(clocks: dict[str, Any]) -> str:
    """For each k the input at which the first wrong interval ended, the least of its noises."""
    periods = sorted({stream["k"] for clock in clocks.values() for stream in clock["streams"]})
    never = {s["k"] for clock in clocks.values() for s in clock["streams"] if not s["trained"]}
    lines = [
        "| clock | prompt | " + " | ".join(f"*{k}*" if k in never else str(k) for k in periods) + " |",
        "|---|---|" + "---|" * len(periods),
    ]
    for name, clock in clocks.items():
        for prompt in PROMPTS:
            cells = []
            for k in periods:
                found = [kept(s, clock["inputs"]).first_wrong for s in clock["streams"] if s["k"] == k and s["prompt"] == prompt]
                cells.append(str(min((first for first in found if first is not None), default="–")))
            lines.append(f"| {name} | {prompt} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def drift_picture(clocks: dict[str, Any]) -> Any:
    """How late each tick came, over the whole run: a panel for each clock and prompt."""
    figure, axes = panels(2.6 * len(clocks) + 0.4, len(clocks), len(PROMPTS), sharex=True, sharey=True)
    for row, (name, clock) in enumerate(clocks.items()):
        for column, (prompt, said) in enumerate(PROMPTS.items()):
            panel = axes[row, column]
            for trained, (_, colour) in KINDS.items():
                for stream in clock["streams"]:
                    if stream["prompt"] == prompt and stream["trained"] == trained:
                        ticks = stream["ticks"]
                        late = [tick - stream["k"] * number for number, tick in enumerate(ticks, start=1)]
                        panel.plot(
                            ticks, late, color=colour, linewidth=1.1, alpha=0.6, marker="o" if len(ticks) == 1 else None, markersize=3
                        )
            panel.axvline(clock["trained_inputs"], color=INK, linewidth=0.9, linestyle=DASHES)
            panel.set_xscale("log")
            panel.set_yscale("symlog", linthresh=1)
            style(
                panel, f"{name}: {said}", "inputs heard" if row == len(clocks) - 1 else "", "" if column else "drift, inputs", grid="both"
            )
    for kind, colour in KINDS.values():
        axes[0, 0].plot([], [], color=colour, label=kind)
    axes[0, 0].plot([], [], color=INK, linestyle=DASHES, linewidth=0.9, label="training length")
    axes[0, 0].legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return figure


def interval_picture(clocks: dict[str, Any], length: int) -> Any:
    """The mean interval that was kept over ``length`` times the training length, against the one asked for.

    One that is longer than can be shown beside the others lies at the upper edge, as a triangle.
    """
    figure, axes = panels(4.0, 1, len(clocks), sharey=True)
    for column, (name, clock) in enumerate(clocks.items()):
        panel, inputs = axes[0, column], min(length * clock["trained_inputs"], clock["inputs"])
        top = max(stream["k"] for stream in clock["streams"]) + 1
        panel.plot([0, top], [0, top], color=GREY, linewidth=0.8)
        for prompt, marker in (("told", "o"), ("shown", "D")):
            for trained, (kind, colour) in KINDS.items():
                chosen = [s for s in clock["streams"] if s["prompt"] == prompt and s["trained"] == trained]
                counts = [(s["k"], kept(s, inputs).said) for s in chosen]
                points = [(k, inputs / said if said else math.inf) for k, said in counts]
                face = "none" if marker == "o" else colour
                look: dict[str, Any] = {"s": 22, "facecolors": face, "edgecolors": colour}
                shown, beyond = ([point for point in points if (point[1] <= 2 * top) == inside] for inside in (True, False))
                panel.scatter([x for x, _ in shown], [y for _, y in shown], marker=marker, label=f"{kind}, {prompt}", **look)
                panel.scatter([x for x, _ in beyond], [2 * top] * len(beyond), marker="^", **look)
        style(
            panel, name, "interval asked for, inputs", "" if column else f"mean interval over {length} × the training length", grid="both"
        )
    axes[0, 0].scatter([], [], s=22, marker="^", facecolors="none", edgecolors=INK, label=f"more than {2 * top}, or no tick")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--at", type=int, action="append", help="rows at so many times the training length")
    arguments = parser.parse_args()
    named = (run.split("=", 1) for run in arguments.runs)
    clocks = {name: json.loads(Path(file).read_text()) for name, file in named}
    at = list(dict.fromkeys(arguments.at or [1, 10, 100]))
    title = "Input at which the first interval was wrong (*never trained*; –: none)"
    written = f"{caption(clocks)}\n\n{table(clocks, at)}\n\n{title}\n\n{first_errors(clocks)}\n"
    with atomic_write(arguments.out / "clock.md") as file:
        file.write(written)
    drift_picture(clocks).savefig(arguments.out / "clock_drift.png")
    interval_picture(clocks, 10).savefig(arguments.out / "clock_intervals.png")
    print(written)


if __name__ == "__main__":
    main()
