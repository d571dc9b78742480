"""Filter banks of other toolkits, against those toolkits."""

import pytest
import torch
import torchaudio
from speechbrain.lobes.features import Fbank

from reallm.errors import InputError
from reallm.frontends.kaldi_fbank import KaldiFbankFrontend
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend


def audio(samples: int) -> torch.Tensor:
    """(1, samples): noise that swells, with an offset that DC removal has to find."""
    noise = torch.randn(1, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return 0.02 + 0.1 * noise * torch.linspace(0.05, 1, samples).double()


@pytest.mark.parametrize(("rate", "mels", "scale"), [(8000, 40, 32768.0), (16000, 80, 32768.0), (16000, 23, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kaldi_fbank_equals_torchaudio(rate, mels, scale, dtype):
    frontend = KaldiFbankFrontend(rate, mels, scale=scale).to(dtype)
    shift, window = frontend.frame_shift, frontend.window_samples
    wav = audio(20 * shift + 7).to(dtype)

    def kaldi(samples, snip_edges=True):
        """In the dtype of the test, and in float64."""
        options = {"num_mel_bins": mels, "sample_frequency": rate, "snip_edges": snip_edges, "dither": 0.0}
        return [torchaudio.compliance.kaldi.fbank(samples.to(kind) * scale, **options) for kind in (dtype, torch.float64)]

    def agree(found, expected, frames=slice(None)):
        same, exact = (features[frames] for features in expected)
        # In float32, torchaudio's own rounding is above 1e-4 where a band holds next to nothing.
        most = max(1e-4, (same - exact).abs().max().item())
        torch.testing.assert_close(found[: len(expected[1])][frames].double(), exact, atol=most, rtol=0)
        assert dtype is torch.float32 or most == 1e-4

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
    agree(found, centred, slice(3, len(centred[0]) - 3))


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
