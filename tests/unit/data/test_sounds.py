"""Sounds that are no speech: never silent for long, of all kinds, always the same."""

from pathlib import Path

import numpy as np

from reallm.data.sounds import SOUNDS_SECONDS, sounds, sounds_recording

RATE = 8000


def test_sounds() -> None:
    made = sounds(60 * RATE, RATE, np.random.default_rng(0))
    assert made.dtype == np.float32 and made.shape == (60 * RATE,) and np.abs(made).max() <= 1
    levels = np.sqrt((made.reshape(-1, RATE // 2) ** 2).mean(1))
    assert levels.min() > 5e-3, "half a second of silence would be made as loud as speech"
    power = np.abs(np.fft.rfft(made.reshape(-1, 1000) * np.hanning(1000))) ** 2 + 1e-12
    flatness = np.exp(np.log(power).mean(1)) / power.mean(1)  # 0: a tone, 0.56: white noise
    assert (flatness < 0.02).mean() > 0.3 and (flatness > 0.2).mean() > 0.1
    np.testing.assert_array_equal(made, sounds(60 * RATE, RATE, np.random.default_rng(0)))


def test_recording(tmp_path: Path) -> None:
    recording = sounds_recording(tmp_path, RATE)
    assert recording.duration == SOUNDS_SECONDS and recording.sampling_rate == RATE
    path, other = tmp_path / "sounds.flac", tmp_path / "other"
    other.mkdir()
    made = path.stat().st_mtime_ns
    sounds_recording(tmp_path, RATE)
    assert path.stat().st_mtime_ns == made
    sounds_recording(other, RATE)
    assert (other / "sounds.flac").read_bytes() == path.read_bytes()
    assert sounds_recording(tmp_path, 2 * RATE).sampling_rate == 2 * RATE
