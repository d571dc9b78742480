"""Channels that cancel out, and those that only differ."""

import numpy as np
import pytest

from reallm.data.channels import ChannelMean

RANDOM = np.random.default_rng(0)
SPEECH, OTHER = RANDOM.normal(size=(2, 8000)).astype(np.float32) * 0.1


@pytest.mark.parametrize(
    "channels, cancel",
    [
        ([SPEECH], False),
        ([SPEECH, SPEECH], False),
        ([SPEECH, OTHER], False),
        ([SPEECH, 0 * SPEECH], False),
        ([SPEECH, -0.5 * SPEECH], False),
        ([0 * SPEECH, 0 * SPEECH], False),
        (list(RANDOM.normal(size=(16, 8000))), False),
        ([SPEECH, -SPEECH], True),
        ([SPEECH, -SPEECH + 0.02 * OTHER], True),
        ([SPEECH, -SPEECH, OTHER, -OTHER], True),
    ],
)
def test_channels_that_cancel(channels: list[np.ndarray], cancel: bool) -> None:
    mean = ChannelMean()
    for piece in np.array_split(np.stack(channels, axis=1), 10):
        mean.add(piece)
    assert mean.cancels is cancel
