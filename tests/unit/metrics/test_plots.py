"""Pictures of what is hardly there."""

import numpy as np
import pytest

from reallm.metrics import plots


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_a_spectrogram_of_any_length(samples: int) -> None:
    power, hop = plots.spectrogram(np.zeros(samples, dtype=np.float32), 8000)
    assert power.shape[1] == max(1, -(-samples // 40)) and hop == 0.005 and np.isfinite(power).all()
    plots.utterance(np.zeros(samples, dtype=np.float32), 8000, [], [], [], "u")
