"""Digits of a synthesizer, with pauses, as the packaged model hears them."""

import numpy as np
import soxr

from reallm.data.synthesis import Synthesizer
from reallm.streaming.resampler import Audio

RATE = 8000


def spoken(*words_and_pauses: tuple[str, float]) -> Audio:
    """Audio (S,) of words, each followed by so many seconds of silence, in a little noise."""
    voice, random, parts = Synthesizer(), np.random.default_rng(0), []
    for word, pause in words_and_pauses:
        parts += [soxr.resample(voice.speak(word, "en-us+m3", 140), voice.sample_rate, RATE), np.zeros(int(RATE * pause))]
    audio = np.concatenate(parts)
    noisy: Audio = (0.5 * audio + 0.0005 * random.standard_normal(len(audio))).astype(np.float32)
    return noisy


def two_pauses() -> Audio:
    """Six digits, with a second of silence after the second, and more after the fifth."""
    return spoken(("five", 0.1), ("three", 1.0), ("seven", 0.2), ("two", 0.2), ("nine", 1.5), ("one", 0.1))
