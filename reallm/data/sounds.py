"""Sounds that are no speech, from which nothing is to be recognized: notes, glides, knocks and hiss."""

from pathlib import Path

import numpy as np
from lhotse import Recording

from reallm.data.noise import coloured_noise, made_recording

SOUNDS_SECONDS = 300
SOUNDS_RMS = 0.1  # of a sound that does not fall, on average


def _notes(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) one to four voices, each a fundamental with up to six partials, which may glide and waver."""
    time = np.arange(samples) / sample_rate
    sound = np.zeros(samples)
    for _ in range(rng.integers(1, 5)):
        glide = rng.uniform(-1, 1) * (rng.random() < 0.2)  # octaves a second
        wavering = rng.uniform(0, 0.02) * np.sin(2 * np.pi * rng.uniform(3, 8) * time)
        lowest = 80 * 2 ** rng.uniform(0, 4)  # Hz
        phase = 2 * np.pi * np.cumsum(lowest * 2 ** (glide * time) * (1 + wavering)) / sample_rate
        steepness = rng.uniform(0.5, 2.5)
        for partial in range(1, rng.integers(1, 7) + 1):
            if partial * lowest * 2 ** max(0.0, glide * time[-1]) * 1.02 < sample_rate / 2:
                sound += partial**-steepness * np.sin(partial * phase + rng.uniform(0, 2 * np.pi))
    return sound


def _envelope(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) even, or falling after it was struck; a sudden or a soft begin and end."""
    time = np.arange(samples) / sample_rate
    falling = 0.1 + 0.9 * np.exp(-time / rng.uniform(0.1, 0.6)) if rng.random() < 0.4 else np.ones(samples)
    edge = rng.uniform(0, 0.05)
    return falling * np.clip(np.minimum(time, time[::-1]) / max(edge, 1 / sample_rate), 0.1, 1)


def sounds(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) float32: one sound after another, each a twentieth of a second to a second and a half long.

    Three of five are notes, the others noise between white and brown; after a third of them it is silent for up to a fifth of a second.
    """
    made = np.zeros(samples, dtype=np.float32)
    start = 0
    while start < samples:
        size = round(float(rng.uniform(0.05, 1.5)) * sample_rate)
        noisy = rng.random() >= 0.6
        sound = coloured_noise(size, rng.uniform(0, 2), rng) if noisy else _notes(size, sample_rate, rng)
        sound = sound * _envelope(size, sample_rate, rng)
        loudness = max(float(np.sqrt((sound**2).mean())), float(np.abs(sound).max()) / 5, 1e-9)  # what is struck is not louder for that
        end = min(samples, start + size)
        made[start:end] = SOUNDS_RMS * 10 ** (rng.uniform(-3, 3) / 20) * sound[: end - start] / loudness
        start = end + round(rng.uniform(0, 0.2) * sample_rate) * int(rng.random() < 1 / 3)
    return made


def sounds_recording(folder: Path, sample_rate: int) -> Recording:
    """``folder``/sounds.flac: five minutes of them, always the same; made if it is not there."""
    samples = SOUNDS_SECONDS * sample_rate
    return made_recording(folder / "sounds.flac", sample_rate, lambda: sounds(samples, sample_rate, np.random.default_rng(20261)))
