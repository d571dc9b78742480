"""Strings of digits, composed by lhotse cuts from recordings of single ones: no audio is copied.

A string is a mix: track 0 is a piece of the noise recording, which sets the level; every digit is mixed in at a level
above it (a negative SNR, in lhotse's terms), so that levels do not depend on how loud a speaker was recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import MixedCut, MixTrack

from reallm.data.alignments import with_words
from reallm.data.corpora.fsdd import DigitRecording
from reallm.data.noise import NOISE_RMS
from reallm.types import Word


@dataclass(frozen=True)
class StringRecipe:
    """The ranges that a string is drawn from; levels in dB, silences in seconds."""

    max_digits: int = 8
    no_silence: float = 0.2  # share of strings without any silence, not even before and after
    no_gap: float = 0.25  # share of silences between words that are nothing at all, in the other strings
    max_gap: float = 0.5
    max_margin: float = 0.7  # before the first and after the last word
    level_db: tuple[float, float] = (-36.0, -16.0)  # RMS of the speech, relative to full scale
    word_level_db: float = 3.0  # of each word, relative to the string's
    floor_db: tuple[float, float] = (25.0, 50.0)  # the speech above the noise floor
    peak: float = 0.9  # of the loudest word
    sounds_seconds: tuple[float, float] = (0.5, 2.5)  # of other sounds, where there are some
    sounds_db: tuple[float, float] = (-20.0, 10.0)  # their level, relative to the string's; never above the loudest string's


Pool = Mapping[str, Mapping[int, Sequence[DigitRecording]]]  # speaker → digit → recordings


def pool_of(recordings: Sequence[DigitRecording]) -> Pool:
    """Recordings by speaker and digit."""
    pool: dict[str, dict[int, list[DigitRecording]]] = {}
    for recording in recordings:
        pool.setdefault(recording.speaker, {}).setdefault(recording.digit, []).append(recording)
    return {speaker: dict(sorted(digits.items())) for speaker, digits in sorted(pool.items())}


def _silences(count: int, recipe: StringRecipe, rng: np.random.Generator, sample_rate: int) -> list[int]:
    """Samples of silence before each of ``count`` words and after the last."""
    if rng.random() < recipe.no_silence:
        return [0] * (count + 1)
    margins = rng.uniform(0, recipe.max_margin, 2) * (rng.random(2) >= recipe.no_gap)
    gaps = rng.uniform(0, recipe.max_gap, count - 1) * (rng.random(count - 1) >= recipe.no_gap)
    return [round(float(s) * sample_rate) for s in (margins[0], *gaps, margins[1])]


def _piece(name: str, recording: Recording, samples: int, rng: np.random.Generator) -> MonoCut:
    """``samples`` of a recording, from anywhere in it."""
    rate = recording.sampling_rate
    start = int(rng.integers(0, recording.num_samples - samples + 1))
    return MonoCut(name, start=start / rate, duration=samples / rate, channel=0, recording=recording)


def compose_string(
    name: str,
    pool: Pool,
    noise: Recording,
    recipe: StringRecipe,
    rng: np.random.Generator,
    speeds: Sequence[float] = (1.0,),
    sounds: Recording | None = None,
) -> MixedCut:
    """One string, a function of the generator's state. Its words' begins and ends are stored as the ``word`` alignment.

    ``sounds``: what is heard at the begin of one of its silences, which is longer by as much. None: nothing. It may pass full scale.
    """
    rate = noise.sampling_rate
    speaker = str(rng.choice(list(pool)))
    count = int(rng.integers(1, recipe.max_digits + 1))
    digits = rng.choice(list(pool[speaker]), count)
    chosen = [pool[speaker][int(d)][int(rng.integers(len(pool[speaker][int(d)])))] for d in digits]
    silences = _silences(count, recipe, rng, rate)
    word_levels = rng.uniform(-recipe.word_level_db, recipe.word_level_db, count)
    loudest = max(20 * np.log10(d.peak / d.rms) + w for d, w in zip(chosen, word_levels, strict=True))
    level = min(float(rng.uniform(*recipe.level_db)), 20 * np.log10(recipe.peak) - loudest)
    floor = float(rng.uniform(*recipe.floor_db))
    speed = float(rng.choice(list(speeds)))
    heard, where = 0, 0  # samples of other sounds, and in which silence
    if sounds is not None:
        heard, where = round(float(rng.uniform(*recipe.sounds_seconds)) * rate), int(rng.integers(len(silences)))
        silences[where] += heard

    tracks, words, position, sounds_at = [], [], silences[0], 0
    for number, (digit, silence, word_level) in enumerate(zip(chosen, silences[1:], word_levels, strict=True)):
        cut = MonoCut(
            f"{name}-{number}",
            start=digit.begin_samples / rate,
            duration=(digit.end_samples - digit.begin_samples) / rate,
            channel=0,
            recording=digit.recording,
        )
        if speed != 1.0:
            cut = cut.perturb_speed(speed, affix_id=False)
        tracks.append(MixTrack(cut, offset=position / rate, snr=round(-(floor + float(word_level)), 2)))
        words.append(Word(digit.word, position / rate, (position + cut.num_samples) / rate))
        if where == len(words):
            sounds_at = position + cut.num_samples
        position += cut.num_samples + silence
    if sounds is not None:
        louder = min(float(rng.uniform(*recipe.sounds_db)), recipe.level_db[1] - level)
        tracks.append(MixTrack(_piece(f"{name}-sounds", sounds, heard, rng), offset=sounds_at / rate, snr=round(-(floor + louder), 2)))

    factor = float(f"{10 ** ((level - floor) / 20) / NOISE_RMS:.4g}")
    background = _piece(f"{name}-noise", noise.perturb_volume(factor, affix_id=False), position, rng)
    text = " ".join(w.word for w in words)
    background.supervisions = [SupervisionSegment(name, "noise", 0.0, position / rate, text=text, speaker=speaker, language="en")]
    background.custom = {"floor_db": round(floor, 2)}
    return with_words(MixedCut(name, [MixTrack(background), *tracks]), words)


def with_noise(cut: MixedCut, name: str, noise: Recording, snr_db: float, rng: np.random.Generator) -> MixedCut:
    """The same string with one more track: noise that lies ``snr_db`` below the string's speech level."""
    floor = cut.tracks[0].cut.custom["floor_db"]
    louder = _piece(f"{name}-added", noise, cut.num_samples, rng)
    tracks = [*cut.tracks, MixTrack(louder, snr=round(snr_db - floor, 2))]
    return MixedCut(name, tracks)
