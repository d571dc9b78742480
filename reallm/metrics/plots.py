"""The pictures of a report, each a matplotlib figure. No global state of matplotlib is used or changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reallm.metrics.tradeoff import Point, frontier
from reallm.types import Seconds, Word

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db5", "#d9822b", "#2b8a5f", "#b8403a", "#6b7280"
INK, FAINT = "#20242b", "#e4e7ec"
WIDTH = 9.0  # inches
DPI = 150
DASHES = (0, (3, 2))


def _figure(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH, **layout: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, **layout)


def style(axes: Axes, title: str, x: str = "", y: str = "", grid: str = "y") -> None:
    """Titles to the left, faint lines along ``grid`` ("x", "y" or "both"), no frame."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    axes.set_xlabel(x, fontsize=9, color=GREY)
    axes.set_ylabel(y, fontsize=9, color=GREY)
    axes.tick_params(which="both", labelsize=8.5, colors=GREY, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]


def training_curves(journal: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, validation error and learning rate over updates, of the lines of a training journal."""
    lines = [line for line in journal if line["kind"] == "train" and "loss" in line]
    checks = [line for line in journal if line["kind"] == "validation" and "wer" in line]
    figure, (loss, wer, rate) = _figure(7.2, 3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 1.2]})
    updates = [line["update"] for line in lines]
    parts = {"loss": ("all positions", BLUE), "loss_text": ("text", ORANGE), "loss_blank": ("BLANK", GREEN)}
    shown = [name for name in parts if any(name in line for line in lines)]
    for name in shown:
        label, colour = parts[name]
        points = [(line["update"], line[name]) for line in lines if name in line]
        loss.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=label if len(shown) > 1 else None)
    if lines and min(line["loss"] for line in lines) > 0:
        loss.set_yscale("log")
        loss.yaxis.set_major_formatter("{x:g}")
    if len(shown) > 1:
        loss.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    style(loss, "Training loss", "", "loss (log scale)")
    wer.plot([c["update"] for c in checks], [c["wer"] for c in checks], color=BLUE, linewidth=1.6, marker="o", markersize=4)
    if checks:
        last = checks[-1]
        wer.annotate(
            f"{last['wer']:.2f} %", (last["update"], last["wer"]), (0, 8), textcoords="offset points", fontsize=8.5, ha="right", color=INK
        )
    wer.set_ylim(bottom=0)
    style(wer, "Word error rate of dev, streamed", "", "WER, %")
    rate.plot(updates, [1000 * line.get("lr", np.nan) for line in lines], color=GREY, linewidth=1.6)
    rate.set_ylim(bottom=0)
    style(rate, "Learning rate × 1000", "update", "")
    return figure


def spectrogram(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, Seconds]:
    """Power in dB, (frequencies, frames), of samples (S,), and the seconds between frames: Hann windows of 25 ms every 5 ms."""
    size, hop = round(0.025 * sample_rate), round(0.005 * sample_rate)
    padded = np.pad(samples, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: max(1, len(samples)) : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), n=4 * size)) ** 2
    return 10 * np.log10(power.T + 1e-10), hop / sample_rate


def utterance(
    samples: np.ndarray,
    sample_rate: int,
    spoken: Sequence[Word],
    tokens: Sequence[Word],
    recognized: Sequence[Word],
    name: str,
) -> Figure:
    """One utterance over time.

    Args:
        samples: (S,) at ``sample_rate``.
        spoken: the true words, or [].
        tokens: the teacher's tokens, with their times as words, or [].
        recognized: the words, of which the time of emission is drawn.
        name: for the title.
    """
    seconds = len(samples) / sample_rate
    width = float(np.clip(2.4 * seconds, WIDTH, 15.0))  # so that letters have room
    latest = max([seconds, *(word.emitted_at or 0.0 for word in recognized)])
    lanes = [lane for lane in (("truth", spoken), ("teacher's\nalignment", tokens), ("recognized", recognized)) if lane[1]]
    figure, (picture, times) = _figure(5.6, 2, 1, width, sharex=True, gridspec_kw={"height_ratios": [1.25, 1]})
    power, hop = spectrogram(samples, sample_rate)
    top = float(power.max())
    extent = (0.0, power.shape[1] * hop, 0.0, sample_rate / 2000)
    picture.imshow(power, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 70, vmax=top, interpolation="bilinear")
    style(picture, f"Utterance {name}", "", "kHz")
    picture.grid(False)
    for word in spoken:
        for edge in (word.start, word.end):
            picture.axvline(edge, color="white", linewidth=0.6, alpha=0.55)

    style(times, "", "seconds", "", grid="x")
    height = 0.62
    rows = len(lanes) + 1
    for row, (_, words) in enumerate(lanes):
        y = rows - 1 - row
        colour = (GREEN, GREY, BLUE)[("truth", "teacher's\nalignment", "recognized").index(lanes[row][0])]
        for word in words:
            length = max(word.end - word.start, 0.004)
            times.barh(y, length, left=word.start, height=height, color=colour, alpha=0.22, linewidth=0)
            times.plot([word.start, word.start], [y - height / 2, y + height / 2], color=colour, linewidth=1.0)
            size = 7.5 if words is tokens else 8.5
            times.text(word.start + length / 2, y, word.word, ha="center", va="center", fontsize=size, color=INK, clip_on=True)
    ends = [word.end for word in spoken] if [w.word for w in spoken] == [w.word for w in recognized] else [w.end for w in recognized]
    crowded, shown_at = 0.05 * latest, -1.0
    for end, word in zip(ends, recognized, strict=True):
        if word.emitted_at is None:
            continue
        if abs(word.emitted_at - end) > 0.02:
            times.annotate("", (word.emitted_at, 0), (end, 0), arrowprops={"arrowstyle": "-|>", "color": ORANGE, "linewidth": 1.2})
        times.plot([end], [0], marker="|", color=ORANGE, markersize=9)
        times.plot([word.emitted_at] * 2, [-0.45, rows - 0.5], color=ORANGE, linewidth=0.9, linestyle=DASHES, alpha=0.8, zorder=0)
        picture.axvline(word.emitted_at, color=ORANGE, linewidth=0.9, linestyle=DASHES, alpha=0.9)
        lower = 0.4 if word.emitted_at - shown_at < crowded else 0.0  # the label of a word just after another goes below it
        shown_at = word.emitted_at if not lower else shown_at
        label = {"fontsize": 8.5, "color": ORANGE, "fontweight": "bold"}
        times.text(word.emitted_at, -0.52 - lower, word.word, ha="center", va="top", **label)
    times.set_yticks([rows - 1 - row for row in range(len(lanes))] + [0], [label for label, _ in lanes] + ["end of word\n→ emitted"])
    times.set_ylim(-1.4, rows - 0.5)
    times.set_xlim(0, latest + 0.05)
    return figure


def delay_histogram(delays_ms: Sequence[float], title: str) -> Figure:
    """How long after its end each correct word was shown."""
    figure, axes = _figure(3.6)
    low, high = np.percentile(delays_ms, [0.2, 99.8])
    step = 20.0
    edges = np.arange(np.floor(low / step) * step, np.ceil(high / step) * step + step, step)
    axes.hist(np.clip(delays_ms, edges[0], edges[-1]), bins=edges, color=BLUE, alpha=0.85, edgecolor="white", linewidth=0.6)
    marks = {"mean": float(np.mean(delays_ms)), **{f"p{p}": float(np.percentile(delays_ms, p)) for p in (50, 90, 99)}}
    tops = axes.get_ylim()[1]
    axes.set_ylim(0, tops * 1.28)
    for row, (label, value) in enumerate(marks.items()):
        colour = RED if label == "mean" else INK
        # Rounded twice, as results.json and then its reader do, so that the picture has the table's number.
        axes.axvline(value, color=colour, linewidth=1.2, linestyle="-" if label == "mean" else (0, (4, 3)), ymax=0.80 + 0.045 * (3 - row))
        axes.text(value, tops * (1.24 - 0.057 * row), f" {label} {round(value, 1):.0f} ms", fontsize=8.5, color=colour, va="center")
    style(axes, title, "audio accepted when the word showed, minus the word's end, in ms", "words")
    return figure


def error_bars(groups: Mapping[str, tuple[float, float, float, int]], overall: float, title: str, x: str) -> Figure:
    """Word error rates of groups: name → (WER, low, high, words), and the rate of all."""
    figure, axes = _figure(3.4)
    names = list(groups)
    rates = np.array([groups[name][0] for name in names])
    spread = np.array([[groups[n][0] - groups[n][1] for n in names], [groups[n][2] - groups[n][0] for n in names]]).clip(min=0)
    axes.bar(names, rates, width=0.62, color=BLUE, alpha=0.85)
    axes.errorbar(names, rates, yerr=spread, fmt="none", ecolor=INK, elinewidth=1.0, capsize=3)
    axes.axhline(overall, color=RED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_ylim(0, max(0.5, float((rates + spread[1]).max()) * 1.22))
    room = axes.get_ylim()[1]
    for position in range(len(names)):
        over = rates[position] + spread[1][position] + 0.02 * room
        axes.text(position, over, f"{rates[position]:.2f}", ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.set_xticks(range(len(names)), [f"{name}\n{groups[name][3]} words" for name in names])
    axes.annotate(
        f"all\n{overall:.2f} %", (1, overall), (6, 0), ("axes fraction", "data"), "offset points", fontsize=8.5, color=RED, va="center"
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
    style(axes, title, x, "WER, %")
    return figure


def delay_curves(curves: Mapping[str, Sequence[tuple[float, float, float, float]]], lines: Mapping[str, float], title: str) -> Figure:
    """Word error rate over mean emission delay: all ways of decoding, and a line through those that no other beats in both.

    Args:
        curves: streaming systems: name → points (delay in ms, WER in percent, both ends of its interval).
        lines: systems that do not stream: name → WER, whatever the delay.
        title: above the picture.
    """
    figure, axes = _figure(4.6)
    colours = (BLUE, ORANGE, GREEN, RED, GREY, INK)
    for number, (name, points) in enumerate(curves.items()):
        delay, wer, low, high = np.array(points).T
        spread = np.stack([wer - low, high - wer]).clip(min=0)
        colour = colours[number % len(colours)]
        best = frontier([Point(*pair) for pair in zip(delay, wer, strict=True)])
        axes.errorbar(delay, wer, spread, color=colour, linestyle="", elinewidth=1.0, capsize=3, marker="o", markersize=4)
        axes.plot(
            [point.delay_ms for point in best],
            [point.wer for point in best],
            color=colour,
            linewidth=1.6,
            marker="o",
            markersize=4,
            label=name,
        )
    for number, (name, rate) in enumerate(lines.items(), start=len(curves)):
        axes.axhline(rate, color=colours[number % len(colours)], linewidth=1.2, linestyle=DASHES, label=f"{name} (offline)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    style(axes, title, "mean emission delay, ms", "WER, % (bars: 95 %)")
    return figure
