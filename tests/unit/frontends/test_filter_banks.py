"""Filter banks of other toolkits, against those toolkits."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import torchaudio
from speechbrain.lobes.features import Fbank

from reallm.errors import InputError
from reallm.frontends.kaldi_fbank import KaldiFbankFrontend, kaldi_filterbank
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend


def audio(samples: int) -> torch.Tensor:
    """(1, samples): noise that swells, with an offset that DC removal has to find."""
    noise = torch.randn(1, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return 0.02 + 0.1 * noise * torch.linspace(0.05, 1, samples).double()


@pytest.fixture(scope="module")
def utterances(real_data: Path) -> list[torch.Tensor]:
    """The four of LibriSpeech (1, S), float64: pauses and high bands lie 80 dB and more below the vowels, which no noise does."""
    files = sorted((real_data / "librispeech").rglob("*.flac"))
    if not files:
        pytest.skip(f"no LibriSpeech in {real_data}")
    assert len(files) == 4
    return [torch.from_numpy(soundfile.read(file)[0]).unsqueeze(0) for file in files]


ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}  # of features up to 25


def kaldi_fbank(wav: torch.Tensor, dtype: torch.dtype, scale: float = 32768.0, **options: Any) -> torch.Tensor:
    """torchaudio's (T, F), computed in ``dtype``."""
    return torchaudio.compliance.kaldi.fbank(wav.to(dtype) * scale, dither=0.0, **options)


@pytest.mark.parametrize(("rate", "mels", "scale"), [(8000, 40, 32768.0), (16000, 80, 32768.0), (16000, 23, 1.0)])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_kaldi_fbank_equals_torchaudio(rate, mels, scale, dtype):
    frontend = KaldiFbankFrontend(rate, mels, scale=scale).to(dtype)
    shift, window = frontend.frame_shift, frontend.window_samples
    wav = audio(20 * shift + 7).to(dtype)

    def kaldi(samples, snip_edges=True):
        return kaldi_fbank(samples, dtype, scale, num_mel_bins=mels, sample_frequency=rate, snip_edges=snip_edges)

    def agree(found, expected):
        torch.testing.assert_close(found[: len(expected)], expected, atol=ROUNDING[dtype], rtol=0)

    lens = torch.tensor([wav.size(1)])
    whole = lens // shift
    agree(frontend(wav, lens)[0][0, :whole], kaldi(torch.nn.functional.pad(wav, (window - shift, 0))))

    # On Kaldi's own grid: frames end where ours do if the waveform comes a little later.
    later = torch.nn.functional.pad(wav, (-window % shift, 0))
    first = -(-window // shift) - 1
    agree(frontend(later, torch.tensor([later.size(1)]))[0][0, first:], kaldi(wav))

    # Without snip_edges Kaldi's frames are those between, but for the mirrored ends.
    centred = kaldi(wav, snip_edges=False)
    ahead = (window - shift) // 2
    shifted = torch.nn.functional.pad(wav, (-ahead % shift, 0))
    found = frontend(shifted, torch.tensor([shifted.size(1)]))[0][0, -(-ahead // shift) :]
    agree(found[3:], centred[3:-3])


@pytest.mark.parametrize("dtype", ROUNDING)
def test_kaldi_fbank_equals_torchaudio_on_real_speech(utterances, dtype):
    frontend = KaldiFbankFrontend().to(dtype)
    options = {"num_mel_bins": 80, "sample_frequency": 16000}
    for wav in (torch.nn.functional.pad(wav, (0, 1600)) for wav in utterances):  # digital silence has a floor
        padded = torch.nn.functional.pad(wav, (frontend.window_samples - frontend.frame_shift, 0))
        expected, exact = (kaldi_fbank(padded, kind, **options) for kind in (dtype, torch.float64))
        found = frontend(wav.to(dtype), torch.tensor([wav.size(1)]))[0][0, : len(expected)]
        torch.testing.assert_close(found, expected, atol=ROUNDING[dtype], rtol=0)
        ours, theirs = ((features.double() - exact).abs().max().item() for features in (found, expected))
        assert ours < max(1e-4, theirs + 1e-6), "rounded more than torchaudio rounds"


def test_kaldi_weights_are_those_of_torchaudio_whatever_the_type_was_before():
    for rate, fft, mels, low, high in ((16000, 512, 80, 20.0, 0.0), (8000, 256, 23, 0.0, -400.0), (16000, 512, 40, 64.0, 3700.0)):
        expected, _ = torchaudio.compliance.kaldi.get_mel_banks(mels, fft, rate, low, high, 100.0, -500.0, 1.0)
        assert torch.equal(kaldi_filterbank(fft, mels, rate, low, high)[:-1].T, expected)
    frontend = KaldiFbankFrontend.tiny()
    for dtype in (torch.float32, torch.float64, torch.float32):
        expected = torch.hann_window(frontend.window_samples, periodic=False, dtype=dtype).pow(0.85)
        assert torch.equal(frontend.to(dtype).window, expected)


@pytest.mark.parametrize(("rate", "mels", "fft", "window_ms"), [(16000, 80, 512, 32), (16000, 40, 400, 25), (8000, 40, 256, 25)])
def test_speechbrain_fbank_equals_speechbrain(rate, mels, fft, window_ms):
    frontend = SpeechBrainFbankFrontend(rate, mels, window_ms, fft=fft)
    before = frontend.window_samples // 2 - frontend.frame_shift
    wav = audio(20 * frontend.frame_shift).float()
    padded = torch.nn.functional.pad(wav, (before, 0))
    expected = Fbank(sample_rate=rate, n_fft=fft, n_mels=mels, win_length=window_ms)(padded)
    feats, lens = frontend(wav, torch.tensor([wav.size(1)]))
    assert int(lens) == 20
    # The last frames of SpeechBrain are padded with zeros at another place.
    torch.testing.assert_close(feats[:, :19], expected[:, :19], atol=1e-3, rtol=0)


def test_settings_that_make_no_bands_are_refused():
    for build, message in (
        (
            lambda: KaldiFbankFrontend(8000, 128),
            "no spectral line of a 256-point FFT at 8000 Hz: use fewer bands, or a longer window_ms than 25.0",
        ),
        (lambda: KaldiFbankFrontend(8000, 40, high_hz=5000), "low_hz 20.0, high_hz 5000 at 8000 Hz"),
        (lambda: SpeechBrainFbankFrontend(8000, 128, 25.0, fft=256), "mel bands hold .* use fewer bands, or a larger fft than 256"),
        (lambda: SpeechBrainFbankFrontend(16000, 40, 32.0, fft=400), "fft 400 is shorter than a frame of 512 samples"),
    ):
        with pytest.raises(InputError, match=message):
            build()
