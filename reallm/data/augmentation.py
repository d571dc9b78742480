"""Augmentation of waveforms that does not move time: stored alignments stay true.

Every draw comes from the generator that is passed in, which the dataset makes from (seed, epoch, cut id): a run that was
stopped and goes on draws the same.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reallm.data.noise import coloured_noise
from reallm.errors import InputError


class Augmentation(Protocol):
    """A random change of one utterance that keeps its length and the time of everything in it."""

    def __call__(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) float32 → (S,) float32."""


@dataclass(frozen=True)
class Chain:
    """Several augmentations, one after the other."""

    augmentations: Sequence[Augmentation]

    def __call__(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,)."""
        for augmentation in self.augmentations:
            wav = augmentation(wav, sample_rate, rng)
        return wav


@dataclass(frozen=True)
class Drawn:
    """What is drawn between ``low_…`` and ``high_…``, for a share ``probability`` of the utterances.

    Raises InputError for a range that is upside down, and a share that is none.
    """

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for low in (name for name in given if name.startswith("low_")):
            high = low.replace("low", "high", 1)
            if not given[low] <= given[high]:
                raise InputError(f"{type(self).__name__}: {low} is {given[low]}, above {high} {given[high]}: exchange them")
        if not 0 <= given.get("probability", 0.0) <= 1:
            raise InputError(f"{type(self).__name__}: probability is {given['probability']}: a share from 0 to 1")


class InAShare(Drawn):
    """What changes a share of the utterances: ``probability``, a field of the subclass. Those too short for a spectrum are left."""

    probability: float

    def __call__(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,)."""
        return wav if rng.random() >= self.probability or len(wav) < 2 else self.change(wav, sample_rate, rng)

    @abstractmethod
    def change(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,), S >= 2 → (S,)."""


def filtered(wav: Tensor, response: Tensor, size: int) -> Tensor:
    """wav (S,) times ``response`` (size // 2 + 1,) in an FFT of ``size``, in which the end does not come round to the start → (S,)."""
    return torch.fft.irfft(torch.fft.rfft(wav, n=size) * response, n=size)[: len(wav)]


@dataclass(frozen=True)
class Gain(Drawn):
    """A level change, uniform in dB."""

    low_db: float = -10.0
    high_db: float = 10.0

    def __call__(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,); never louder than full scale, unless it was."""
        gain = 10 ** (rng.uniform(self.low_db, self.high_db) / 20)
        peak = float(wav.abs().max()) if len(wav) else 0.0
        return wav * min(gain, max(1.0, 1.0 / peak) if peak > 0 else gain)


@dataclass(frozen=True)
class AdditiveNoise(InAShare):
    """Gaussian noise between white and brown, at a signal-to-noise ratio uniform in dB, in a share of the utterances.

    The ratio is to the mean power of the utterance, its silences included.
    """

    low_db: float = 0.0
    high_db: float = 30.0
    probability: float = 0.5

    def change(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,)."""
        exponent, fast = rng.uniform(0.0, 2.0), 1 << (len(wav) - 1).bit_length()  # FFTs of prime lengths are slow
        noise = torch.from_numpy(coloured_noise(fast, exponent, rng)[: len(wav)])
        return wav + noise * wav.square().mean().sqrt() * 10 ** (-rng.uniform(self.low_db, self.high_db) / 20)


@dataclass(frozen=True)
class Equalizer(InAShare):
    """A random smooth frequency response with zero phase, so that nothing is delayed: other microphones, other rooms' colour."""

    db: float = 6.0
    bands: int = 6
    probability: float = 0.5

    def change(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,)."""
        size = len(wav) + sample_rate // 10
        gains = rng.uniform(-self.db, self.db, self.bands)
        curve = np.interp(np.linspace(0, self.bands - 1, size // 2 + 1), np.arange(self.bands), gains)
        return filtered(wav, torch.from_numpy(10 ** (curve / 20)).to(wav.dtype), size)


@dataclass(frozen=True)
class Reverberation(InAShare):
    """A room: after the direct sound, which is not delayed, noise that decays exponentially (Moorer 1979); in a share of the utterances.

    Args:
        low_seconds, high_seconds: in which the sound falls by 60 dB; uniform.
        low_db, high_db: energy of the direct sound against that of the room; uniform.
        probability: of an utterance to be in a room.
    """

    low_seconds: float = 0.1
    high_seconds: float = 0.6
    low_db: float = 0.0
    high_db: float = 15.0
    probability: float = 0.3

    def change(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,); what sounds after its end is cut."""
        seconds = rng.uniform(self.low_seconds, self.high_seconds)
        decay = 10 ** (-3 * np.arange(max(2, round(seconds * sample_rate))) / (seconds * sample_rate))  # 60 dB of amplitude: 10 ** -3
        room = rng.standard_normal(len(decay)) * decay
        room[0] = 0.0
        room *= np.sqrt(10 ** (-rng.uniform(self.low_db, self.high_db) / 10) / (room**2).sum())
        room[0] = 1.0
        size = 1 << (len(wav) + len(room) - 2).bit_length()
        return filtered(wav, torch.fft.rfft(torch.from_numpy(room).to(wav.dtype), n=size), size)


@dataclass(frozen=True)
class BandLimit(InAShare):
    """A low-pass filter with zero phase, in a share of the utterances: telephones, and recordings of lower sample rates.

    Args:
        low_hz, high_hz: where it falls to a half; uniform.
        probability: of an utterance to be filtered.
    """

    low_hz: float = 3400.0
    high_hz: float = 4000.0
    probability: float = 0.3

    def change(self, wav: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """wav (S,) → (S,)."""
        size = 1 << (len(wav) + sample_rate // 10 - 1).bit_length()
        hz = torch.arange(size // 2 + 1, dtype=wav.dtype) * (sample_rate / size)
        response = torch.sigmoid((rng.uniform(self.low_hz, self.high_hz) - hz) / 50)
        return filtered(wav, response, size)
