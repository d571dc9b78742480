"""Channels that cancel out in their mean, which is what is recognized."""

import numpy as np

LEFT = 0.02  # of the energy that unrelated channels leave in their mean; below it they cancel


class ChannelMean:
    """How much of the energy of the channels is in their mean."""

    def __init__(self) -> None:
        self._of_mean = self._unrelated = 0.0

    def add(self, samples: np.ndarray) -> None:
        """samples (S, channels) float."""
        channels = samples.shape[1]
        if channels > 1:
            mean = samples.mean(axis=1)
            self._of_mean += float(np.vdot(mean, mean))
            self._unrelated += float(np.vdot(samples, samples)) / channels**2

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel, as two of opposite phase do."""
        return self._of_mean < LEFT * self._unrelated
