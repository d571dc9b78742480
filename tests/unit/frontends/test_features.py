"""Frontends against torchaudio, and their statistics."""

import pytest
import torch
import torchaudio

from reallm.errors import InputError
from reallm.frontends.kaldi_fbank import KaldiFbankFrontend
from reallm.frontends.log_mel import LogMelFrontend
from reallm.frontends.mfcc import MFCCFrontend, cosine_transform
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend
from reallm.layers.mel import mel_filterbank, warped_filterbank


def audio(rows: int = 2, samples: int = 2400) -> torch.Tensor:
    return 0.1 * torch.randn(rows, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (16000, 80)])
def test_log_mel_equals_torchaudio(rate, mels):
    frontend = LogMelFrontend(sample_rate=rate, mels=mels).double()
    reference = torchaudio.transforms.MelSpectrogram(
        rate, n_fft=frontend.fft, win_length=frontend.window_samples, hop_length=frontend.frame_shift, n_mels=mels, center=False
    ).double()
    wav = audio()
    feats, lens = frontend(wav, torch.tensor([2400, 2400]))
    # torch.stft centres the window in the FFT; ours ends with the frame's period.
    aside = (frontend.fft - frontend.window_samples) // 2
    before = frontend.window_samples - frontend.frame_shift + aside
    padded = torch.nn.functional.pad(wav, (before, frontend.fft - frontend.window_samples - aside))
    expected = torch.log(reference(padded).transpose(1, 2) + frontend.floor)
    assert lens.tolist() == [2400 // frontend.frame_shift] * 2
    torch.testing.assert_close(feats, expected, atol=1e-4, rtol=1e-4)


def test_mel_filterbank_equals_torchaudio():
    expected = torchaudio.functional.melscale_fbanks(257, 0.0, 8000.0, 80, 16000)
    torch.testing.assert_close(mel_filterbank(257, 80, 16000).float(), expected, atol=1e-5, rtol=1e-4)


def test_cosine_transform_equals_torchaudio():
    expected = torchaudio.functional.create_dct(13, 40, norm="ortho")
    torch.testing.assert_close(cosine_transform(40, 13).float(), expected, atol=1e-6, rtol=1e-5)


def test_mfcc_is_the_transform_of_log_mel():
    mfcc, log_mel = MFCCFrontend(8000, coefficients=13, mels=40).double(), LogMelFrontend(8000, mels=40).double()
    wav, lens = audio(), torch.tensor([2400, 2400])
    torch.testing.assert_close(mfcc(wav, lens)[0], log_mel(wav, lens)[0] @ mfcc.transform)


@pytest.mark.parametrize("frontend", [LogMelFrontend, MFCCFrontend])
def test_fit_normalizes_the_frames_that_lie_in_the_audio(frontend):
    component = frontend.tiny().double()
    wav, lens = audio(rows=3), torch.tensor([2400, 1000, 1])
    assert component.fit([(wav[:2], lens[:2]), (wav[2:], lens[2:])]) == 30 + 13 + 1
    feats, frames = component(wav, lens)
    valid = torch.cat([row[:n] for row, n in zip(feats, frames, strict=True)])
    torch.testing.assert_close(valid.mean(0), torch.zeros(component.output_dim).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(valid.std(0, correction=0), torch.ones(component.output_dim).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("frontend", [LogMelFrontend, MFCCFrontend])
def test_fit_measures_what_is_heard_after_training(frontend):
    warped, plain = (frontend(8000, vocal_tract=share).train() for share in (0.15, 0.0))
    for component in (warped, plain):
        component.fit([(audio().float(), torch.tensor([2400, 2400]))])
        assert component.training
    assert torch.equal(warped.mean, plain.mean) and torch.equal(warped.std, plain.std)


def test_statistics_are_in_the_checkpoint():
    fitted, fresh = LogMelFrontend.tiny(), LogMelFrontend.tiny()
    fitted.fit([(audio().float(), torch.tensor([2400, 2400]))])
    fresh.load_state_dict(fitted.state_dict())
    assert set(fitted.state_dict()) == {"mean", "std"}
    assert torch.equal(fresh.mean, fitted.mean)
    assert torch.equal(fresh.std, fitted.std)


@pytest.mark.parametrize("frontend", [LogMelFrontend, MFCCFrontend, KaldiFbankFrontend, SpeechBrainFbankFrontend])
def test_windows_and_filterbanks_are_made_not_stored(frontend):
    component = frontend.tiny()
    assert set(component.state_dict()) == {"mean", "std"}
    assert {"window", "filterbank"} <= dict(component.named_buffers()).keys()


def test_constant_features_do_not_divide_by_zero():
    frontend = LogMelFrontend.tiny()
    frontend.fit([(torch.zeros(1, 800), torch.tensor([800]))])
    assert frontend(torch.zeros(1, 800), torch.tensor([800]))[0].isfinite().all()


def test_digital_silence_is_the_floor():
    frontend = LogMelFrontend(8000, mels=40, floor=1e-6)
    feats, _ = frontend(torch.zeros(1, 800), torch.tensor([800]))
    torch.testing.assert_close(feats, torch.full_like(feats, 1e-6).log())


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"shift_ms": 10.03}, "whole number of samples"),
        ({"window_ms": 5.0}, "at least as long"),
        ({"mels": 200}, "fewer bands"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments, fix):
    with pytest.raises(InputError, match=fix) as refused:
        LogMelFrontend(sample_rate=8000, **arguments)
    assert "\n" not in str(refused.value)


def test_statistics_need_audio():
    with pytest.raises(InputError, match="give some audio"):
        LogMelFrontend.tiny().fit([])


def test_too_many_coefficients():
    with pytest.raises(InputError, match="keep 1 to 16"):
        MFCCFrontend(8000, coefficients=17, mels=16)


def tone(hz: float, rate: int = 8000, samples: int = 4000) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz / rate * torch.arange(samples, dtype=torch.float64)).unsqueeze(0)


def test_warping_by_one_changes_nothing():
    filterbank = mel_filterbank(129, 40, 8000)
    torch.testing.assert_close(warped_filterbank(filterbank, 1.0), filterbank)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.15, 1.25])
def test_a_warped_filterbank_hears_a_tone_where_it_was(factor):
    frontend = LogMelFrontend(8000, mels=40).double()
    hz, lens = 1000.0, torch.tensor([4000])
    loudest = frontend(tone(hz), lens)[0][0, 5:-5].argmax(-1)
    frontend.filterbank = warped_filterbank(frontend.filterbank, factor)
    assert (frontend(tone(hz * factor), lens)[0][0, 5:-5].argmax(-1) - loudest).abs().max() <= 1
    assert (frontend.filterbank.sum(0) > 0).all(), "a band is empty"


@pytest.mark.parametrize("frontend", [LogMelFrontend, MFCCFrontend])
def test_vocal_tracts_differ_by_utterance_in_training_alone(frontend):
    component = frontend(8000, mels=40, vocal_tract=0.2).double()
    wav, lens = tone(1000.0).expand(8, -1), torch.full((8,), 4000)
    torch.manual_seed(0)
    drawn = component(wav, lens)[0]
    assert len({tuple(row.flatten().tolist()) for row in drawn[:, 10]}) > 3
    component.eval()
    torch.testing.assert_close(component(wav, lens)[0], frontend(8000, mels=40).double()(wav, lens)[0])
    with pytest.raises(InputError, match=r"vocal_tract 0\.5"):
        frontend(8000, vocal_tract=0.5)
