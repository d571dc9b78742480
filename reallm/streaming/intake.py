"""Pieces of audio as users push them, to samples at the system's rate."""

from reallm.errors import InputError
from reallm.streaming.resampler import Audio, Resampler
from reallm.types import Seconds


class Intake:
    """What one stream has accepted: audio of one rate, resampled.

    Args:
        output_rate: samples per second of what comes out.
    """

    def __init__(self, output_rate: int) -> None:
        self._output_rate = output_rate
        self._resampler: Resampler | None = None
        self.rate: int | None = None  # that of the first piece
        self.samples = 0  # accepted, at that rate

    @property
    def accepted(self) -> Seconds:
        """Seconds of audio accepted so far."""
        return self.samples / self.rate if self.rate else 0.0

    def check_rate(self, sample_rate: int) -> None:
        """Raises InputError for a rate that is not that of the first piece, and for one that is no rate."""
        if self._resampler is None:
            self._resampler = Resampler(sample_rate, self._output_rate)
            self.rate = self._resampler.input_rate
        elif sample_rate != self.rate:
            raise InputError(f"sample rate {sample_rate}: the stream began with {self.rate}; use one stream per rate")

    def take(self, mono: Audio, sample_rate: int) -> Audio:
        """mono (S,) → samples (S',) at the system's rate. Raises InputError as ``check_rate``."""
        self.check_rate(sample_rate)
        assert self._resampler is not None
        self.samples += len(mono)
        return self._resampler.push(mono)

    def finish(self) -> Audio | None:
        """What was held back, (S',); None where there was no piece."""
        return None if self._resampler is None else self._resampler.finish()
