"""Pictures of what is hardly there."""

import numpy as np
import pytest

from reallm.metrics import plots


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_a_spectrogram_of_any_length(samples: int) -> None:
    power, hop = plots.spectrogram(np.zeros(samples, dtype=np.float32), 8000)
    assert power.shape[1] == max(1, -(-samples // 40)) and hop == 0.005 and np.isfinite(power).all()
    plots.utterance(np.zeros(samples, dtype=np.float32), 8000, [], [], [], "u")


def test_the_line_of_a_system_goes_through_what_no_other_of_its_decodings_beats() -> None:
    """All of them are points, also one that is later and no better."""
    points = [
        (150.0, 75.0, 72.0, 78.0),
        (300.0, 74.0, 71.0, 77.0),
        (230.0, 70.0, 67.0, 73.0),
        (304.0, 69.0, 66.0, 72.0),
        (490.0, 71.0, 68.0, 74.0),
    ]
    axes = plots.delay_curves({"one": points}, {"other": 72.0}, "test").axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_label() == "one"]
    assert list(zip(*line.get_data(), strict=True)) == [(150.0, 75.0), (230.0, 70.0), (304.0, 69.0)]
    (bars,) = axes.containers
    assert list(zip(*bars[0].get_data(), strict=True)) == [point[:2] for point in points] and bars[0].get_linestyle() == "None"
