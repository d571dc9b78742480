"""Augmentation changes how speech sounds, never when it is."""

import numpy as np
import pytest
import torch

from reallm.data.augmentation import AdditiveNoise, Augmentation, BandLimit, Chain, Equalizer, Gain, Reverberation
from reallm.data.noise import coloured_noise
from reallm.errors import InputError

RATE = 8000
ALL: list[Augmentation] = [
    Gain(),
    AdditiveNoise(probability=1.0),
    Equalizer(probability=1.0),
    Reverberation(probability=1.0),
    BandLimit(probability=1.0),
    Chain([Gain(), Equalizer(probability=1.0), AdditiveNoise(probability=1.0)]),
]


def click(at: int = 2000, samples: int = 4000) -> torch.Tensor:
    wav = torch.zeros(samples)
    wav[at] = 0.5
    return wav


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
def test_drawn_from_the_generator_alone(augmentation: Augmentation) -> None:
    wav = torch.sin(torch.arange(4000) * 0.1) * 0.1
    a, b, c = (augmentation(wav.clone(), RATE, np.random.default_rng([1, seed])) for seed in (7, 7, 8))
    assert a.dtype == torch.float32 and a.shape == wav.shape
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a, wav)


@pytest.mark.parametrize("seed", range(10))
def test_time_does_not_move(seed: int) -> None:
    quiet = Chain(
        [
            Gain(),
            Equalizer(probability=1.0, db=12),
            Reverberation(probability=1.0),
            BandLimit(2500, 3000, probability=1.0),
            AdditiveNoise(60, 70, probability=1.0),
        ]
    )
    assert int(quiet(click(), RATE, np.random.default_rng(seed)).abs().argmax()) == 2000


def test_noise_ratio() -> None:
    wav = torch.sin(torch.arange(80000) * 0.1)
    noisy = AdditiveNoise(5.0, 5.0, probability=1.0)(wav, RATE, np.random.default_rng(0))
    ratio = 10 * torch.log10(wav.square().mean() / (noisy - wav).square().mean())
    assert abs(float(ratio) - 5.0) < 0.01


def test_gain_does_not_clip() -> None:
    for seed in range(20):
        assert Gain(0, 40)(click(), RATE, np.random.default_rng(seed)).abs().max() <= 1.0 + 1e-6


@pytest.mark.parametrize("exponent, slope_db", [(0.0, 0.0), (1.0, 3.0), (2.0, 6.0)])
def test_colours(exponent: float, slope_db: float) -> None:
    """dB an octave."""
    noise = coloured_noise(80000, exponent, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[4000:8000].mean(), power[16000:32000].mean()
    assert abs(10 * np.log10(low / high) / 2 - slope_db) < 0.3
    assert abs(float((noise**2).mean()) - 1) < 1e-3


def test_a_room_sounds_after_the_click_and_dies_away() -> None:
    room = Reverberation(0.2, 0.2, 5.0, 5.0, probability=1.0)(click(400, 4000), RATE, np.random.default_rng(0))
    energy = room.double().square()
    assert float(energy[:400].sum()) < 1e-9 and abs(float(room[400]) - 0.5) < 1e-4
    assert abs(10 * np.log10(0.25 / float(energy[401:].sum())) - 5) < 0.1, "direct sound against room"
    early, late = energy[401:561].mean(), energy[401 + 800 : 561 + 800].mean()  # 0.1 s later: 30 of the 60 dB
    assert abs(10 * float(torch.log10(early / late)) - 30) < 3


def test_a_band_ends_where_it_is_limited() -> None:
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(BandLimit(2000, 2000, probability=1.0)(noise, RATE, np.random.default_rng(0))).abs().square()
    assert float(power[4600:].mean() / power[:3400].mean()) < 1e-3
    assert abs(float(power[:3400].mean() / torch.fft.rfft(noise)[:3400].abs().square().mean()) - 1) < 0.02


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (AdditiveNoise, {"probability": 4.0}, "AdditiveNoise: probability is 4.0: a share from 0 to 1"),
        (BandLimit, {"low_hz": 4000.0, "high_hz": 3400.0}, "BandLimit: low_hz is 4000.0, above high_hz 3400.0"),
        (Gain, {"low_db": float("nan")}, "Gain: low_db is nan"),
    ],
)
def test_ranges_that_cannot_be(kind: type, values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**values)
