"""What the pictures of this recipe share."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reallm.metrics.plots import DPI, FAINT, GREY, INK, WIDTH


def panels(height: float, rows: int, columns: int, **layout: Any) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **layout)


def style(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Titles to the left, faint lines, no frame."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=6)
    axes.set_xlabel(x, fontsize=9, color=GREY)
    axes.set_ylabel(y, fontsize=9, color=GREY)
    axes.tick_params(which="both", labelsize=8.5, colors=GREY, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.set_axisbelow(True)
    axes.grid(color=FAINT, linewidth=0.8)
