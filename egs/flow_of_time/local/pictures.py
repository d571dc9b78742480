"""What the pictures of this recipe share."""

from typing import Any

from matplotlib.figure import Figure

from reallm.metrics.plots import DPI, WIDTH


def panels(height: float, rows: int, columns: int, **layout: Any) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **layout)
