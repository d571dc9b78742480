"""Any sample rate to the system's, as a stream."""

from typing import Any

import numpy as np
import soxr

from reallm.errors import InputError

Audio = np.ndarray[Any, np.dtype[np.float32]]


def require_rate(sample_rate: int) -> None:
    """Raises InputError for a sample rate that is not a positive whole number."""
    if int(sample_rate) != sample_rate or sample_rate < 1:
        raise InputError(f"sample rate {sample_rate}: give a positive whole number of samples per second")


class Resampler:
    """A resampler with state: what comes out, all pieces joined, does not depend on where the pieces were cut.

    It works by blocks and holds back up to about 0.16 s, which ``finish`` brings out. Equal rates pass through.

    Args:
        input_rate: samples per second of what is pushed.
        output_rate: samples per second of what comes out.

    Raises InputError for a rate that is not a positive whole number.
    """

    def __init__(self, input_rate: int, output_rate: int) -> None:
        require_rate(input_rate)
        self.input_rate = int(input_rate)
        self.output_rate = output_rate
        self._stream = None if self.input_rate == output_rate else soxr.ResampleStream(self.input_rate, output_rate, 1, dtype="float32")

    def push(self, samples: Audio) -> Audio:
        """samples (S,) at the input rate → (S',) at the output rate."""
        if self._stream is None:
            return samples
        resampled: Audio = self._stream.resample_chunk(samples)
        return resampled

    def finish(self) -> Audio:
        """What was held back, (S',)."""
        if self._stream is None:
            return np.zeros(0, dtype=np.float32)
        rest: Audio = self._stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        return rest
