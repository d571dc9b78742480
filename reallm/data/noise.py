"""Stationary noise: the file that strings take their noise floor from, and the noise of augmentation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording

from reallm.data.files import atomic_write

NOISE_SECONDS = 60
NOISE_RMS = 0.1


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """(samples,) float32 Gaussian noise of RMS 1 whose power falls with frequency ^ -exponent: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.arange(len(spectrum)), max(1.0, len(spectrum) / 200))  # flat below, so that no offset wanders
    noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)
    return (noise / np.sqrt((noise**2).mean())).astype(np.float32)


def made_recording(path: Path, sample_rate: int, make: Callable[[], np.ndarray]) -> Recording:
    """The FLAC file ``path`` of this rate in Hz, called by its name; of the samples (S,) that ``make`` gives, where it is not there."""
    if not path.is_file() or soundfile.info(path).samplerate != sample_rate:
        with atomic_write(path, "wb") as file:
            soundfile.write(file, make(), sample_rate, format="FLAC", subtype="PCM_16")
    return Recording.from_file(path, recording_id=path.stem)


def noise_recording(folder: Path, sample_rate: int) -> Recording:
    """``folder``/noise.flac: half a minute of white and half a minute of pink noise, always the same; made if it is not there."""

    def make() -> np.ndarray:
        rng, half = np.random.default_rng(20260), NOISE_SECONDS // 2 * sample_rate
        return NOISE_RMS * np.concatenate([coloured_noise(half, exponent, rng) for exponent in (0.0, 1.0)])

    return made_recording(folder / "noise.flac", sample_rate, make)
