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
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend, running_max


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


def speechbrain_features(wav: torch.Tensor, frontend: SpeechBrainFbankFrontend) -> torch.Tensor:
    """SpeechBrain's own (T, F) of wav (1, S), of frames that end where ours do; without the last two, which it pads at another place."""
    before = frontend.window_samples // 2 - frontend.frame_shift
    features = Fbank(sample_rate=16000, n_fft=512, n_mels=80, win_length=32)(torch.nn.functional.pad(wav, (before, 0)))
    return features[0, : wav.size(1) // frontend.frame_shift - 2]


def test_clipped_features_are_those_of_speechbrain_from_the_loudest_frame_on(utterances):
    frontend, apart = SpeechBrainFbankFrontend(top_db=80.0), {}
    for wav in map(torch.Tensor.float, utterances):
        expected = speechbrain_features(wav, frontend)
        clipped, plain = (one(wav, torch.tensor([wav.size(1)]))[0][0, : len(expected)] for one in (frontend, SpeechBrainFbankFrontend()))
        loudest = int(expected.amax(1).argmax())
        torch.testing.assert_close(clipped[loudest:], expected[loudest:], atol=2e-3, rtol=0)
        for name, feats in (("clipped", clipped), ("plain", plain)):
            differs = (feats - expected).abs()
            apart.setdefault(name, []).append([100 * (differs > 0.01).float().mean().item(), differs.max().item()])
    # Percent of the values and dB, as in the docstring.
    for name, said in {
        "clipped": [[0.21, 20.3], [0.07, 5.3], [1.88, 16.2], [0.01, 3.0]],
        "plain": [[1.49, 20.3], [0.28, 7.4], [2.40, 16.2], [0.01, 3.0]],
    }.items():
        torch.testing.assert_close(torch.tensor(apart[name]), torch.tensor(said), atol=0.06, rtol=0)


@pytest.mark.parametrize("top_db", [30.0, None])
def test_real_speech_is_clipped_in_streams_as_it_is_at_once(utterances, top_db):
    """Of rows that rest and end at different times."""
    frontend = SpeechBrainFbankFrontend(top_db=top_db).double()
    lens = torch.tensor([wav.size(1) for wav in utterances])
    wav = torch.cat([torch.nn.functional.pad(wav, (0, int(lens.max()) - wav.size(1)), value=1e3) for wav in utterances])
    expected, frames = frontend(wav, lens)
    plain = SpeechBrainFbankFrontend().double()(wav, lens)[0]
    least = plain.amax(2, keepdim=True).cummax(1).values - (torch.inf if top_db is None else top_db)
    for row, length in enumerate(frames):
        assert torch.equal(expected[row, :length], torch.maximum(plain, least)[row, :length])
        assert torch.equal(expected[row, :length], plain[row, :length]) == (top_db is None)
    for chunk in (8, 64):
        size, state, position = chunk * frontend.frame_shift, frontend.init_state(4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
        pieces, generator = [[] for _ in lens], torch.Generator().manual_seed(chunk)
        while bool((position < lens).any()):
            filled = torch.where(torch.rand(4, generator=generator) < 0.8, (lens - position).clamp(max=size), 0)
            index = (position.unsqueeze(1) + torch.arange(size)).clamp(max=wav.size(1) - 1)
            feats, found, state = frontend.step(wav.gather(1, index), filled, (filled > 0) & (position + filled == lens), state)
            for row, piece in enumerate(pieces):
                piece.append(feats[row, : found[row]])
            position = position + filled
        for row, piece in enumerate(pieces):
            torch.testing.assert_close(torch.cat(piece), expected[row, : frames[row]], atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 13])
def test_the_running_maximum(size):
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    assert torch.equal(running_max(x), x.cummax(1).values)


def test_settings_that_cannot_be_are_refused():
    for build, message in (
        (
            lambda: KaldiFbankFrontend(8000, 128),
            "no spectral line of a 256-point FFT at 8000 Hz: use fewer bands, or a longer window_ms than 25.0",
        ),
        (lambda: KaldiFbankFrontend(8000, 40, high_hz=5000), "low_hz 20.0, high_hz 5000 at 8000 Hz"),
        (lambda: SpeechBrainFbankFrontend(8000, 128, 25.0, fft=256), "mel bands hold .* use fewer bands, or a larger fft than 256"),
        (lambda: SpeechBrainFbankFrontend(16000, 40, 32.0, fft=400), "fft 400 is shorter than a frame of 512 samples"),
        (lambda: SpeechBrainFbankFrontend(top_db=0.0), "top_db 0.0: choose one above 0, or None"),
    ):
        with pytest.raises(InputError, match=message):
            build()
