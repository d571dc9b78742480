"""Stored features are those that the system makes of the audio itself, with its flush."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse.cut import Cut

from reallm.data import features
from reallm.data.augmentation import AdditiveNoise
from reallm.data.cuts import read_cuts, write_cuts
from reallm.data.dataset import TrainingData, load_batch
from reallm.data.features import FEATURES, stored_features, with_features
from reallm.errors import InputError
from reallm.registry import catalogue, find
from reallm.training.initialize import fit_frontend
from tests.dummies.command import run_data
from tests.dummies.own_data import table, write_audio

RATE = 8000


@pytest.fixture
def cuts(tmp_path: Path) -> list[Cut]:
    """Of 16 kHz, of lengths that are no whole frames; the last one is spoken faster."""
    write_audio(tmp_path, ["a", "bcd"], seconds=0.5)
    write_audio(tmp_path, ["e"], seconds=0.3701)
    rows = [("path", "text"), ("a.wav", "the lazy dog"), ("bcd.wav", "dog"), ("e.wav", "lazy")]
    run_data("tsv", table(tmp_path / "train.tsv", rows), "--out", tmp_path)
    found = list(read_cuts(tmp_path / "train.jsonl.gz"))
    return [*found, found[0].perturb_speed(1.1)]


def stored(cuts: list[Cut], frontend: Any, folder: Path) -> list[Cut]:
    """Through a manifest, as training reads them."""
    write_cuts(with_features(cuts, frontend, folder / "features"), folder / "stored.jsonl.gz")
    return list(read_cuts(folder / "stored.jsonl.gz"))


@pytest.mark.parametrize("name", sorted(catalogue("frontend")))
def test_every_frontend_goes_on_from_what_it_stored(name: str, cuts: list[Cut], tmp_path: Path) -> None:
    frontend = find("frontend", name).tiny().eval()
    rate = frontend.sample_rate
    batch = load_batch(cuts, rate)
    feats, made_by = stored_features(stored(cuts, frontend, tmp_path))
    assert made_by == frontend.fingerprint and made_by.startswith(f"{name}-")
    assert frontend.fit([(batch.wav, batch.wav_lens)]) > 2
    for zeros in (0, 1, frontend.frame_shift, rate // 2):
        lens = batch.wav_lens + zeros
        wav = torch.nn.functional.pad(batch.wav, (0, zeros))
        wanted, frames = frontend(wav, lens)
        found, found_frames = frontend.from_stored(feats, batch.wav_lens, lens)
        assert torch.equal(found_frames, frames)
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("name", sorted(catalogue("system")))
def test_every_system_learns_the_same_from_them(name: str, cuts: list[Cut], tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = find("system", name).tiny().eval()
    online = load_batch(cuts, RATE)
    kept = load_batch(stored(cuts, system.frontend, tmp_path), RATE, features="stored")
    assert kept.wav.numel() == 0 and torch.equal(kept.wav_lens, online.wav_lens) and kept.texts == online.texts
    chunk = system.encoder.chunk
    for one, other in zip(system.hear(kept, chunk), system.hear(online, chunk), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.02)
    kept.feats_by = "other-0"
    with pytest.raises(InputError, match="those of the frontend other-0, not of this system's"):
        system.hear(kept, chunk)


def test_what_is_stored_is_not_computed_again(cuts: list[Cut], tmp_path: Path) -> None:
    frontend = find("frontend", "log_mel").tiny().eval()
    stored(cuts, frontend, tmp_path)
    files = sorted((tmp_path / "features").rglob("*.npy"))
    assert len(files) == 4
    files[1].write_bytes(files[1].read_bytes()[:100])  # a process was killed here
    before = [file.stat().st_mtime_ns for file in files]
    again = stored(cuts, frontend, tmp_path)
    after = [file.stat().st_mtime_ns for file in files]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    assert stored_features(again)[0].shape[0] == 4
    assert len(sorted((tmp_path / "features").rglob("*"))) - len(files) == len({file.parent for file in files}) + 1


def test_an_argument_that_is_none_by_default_may_be_left_out_and_names_the_same_features() -> None:
    build = find("frontend", "speechbrain_fbank")
    assert build(mels=40).fingerprint == build(mels=40, top_db=None).fingerprint
    assert len({build(mels=40).fingerprint, build(mels=40, top_db=80.0).fingerprint, build(mels=40, top_db=70.0).fingerprint}) == 3


def test_training_data(cuts: list[Cut], tmp_path: Path) -> None:
    system = find("system", "ctc").tiny()
    stored(cuts, system.frontend.eval(), tmp_path)
    data = TrainingData(tmp_path / "stored.jsonl.gz", RATE, 1, 2.0, features="stored")
    batch = next(iter(data.loader(1)))
    assert batch.feats is not None and batch.wav.numel() == 0 and batch.to("cpu").feats is batch.feats
    assert fit_frontend(system, data, seed=1) > 2, "statistics are measured on the audio"
    loss, _ = system.train().loss(batch)
    assert torch.isfinite(loss)


def test_what_cannot_be(cuts: list[Cut], tmp_path: Path) -> None:
    manifest = tmp_path / "train.jsonl.gz"
    with pytest.raises(InputError, match="features 'cached': online or stored"):
        TrainingData(manifest, RATE, 1, 2.0, features="cached")
    with pytest.raises(InputError, match="cannot be augmented as audio"):
        TrainingData(manifest, RATE, 1, 2.0, features="stored", augmentation=AdditiveNoise(0.0, 30.0, 0.5))
    with pytest.raises(InputError, match="cut 'a' has no stored features: run `reallm data features`"):
        load_batch(cuts, RATE, features="stored")
    frontend = find("frontend", "log_mel")(sample_rate=RATE, mels=16, vocal_tract=0.1)
    with pytest.raises(InputError, match="put the frontend into eval mode"):
        frontend.store(torch.zeros(100))
    feats, _ = stored_features(stored(cuts, frontend.eval(), tmp_path))
    lens = torch.full((4,), 2000)
    with pytest.raises(InputError, match="set vocal_tract to 0"):
        frontend.train().from_stored(feats, lens, lens)


def test_the_command(cuts: list[Cut], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SHARD", 2)
    conf = tmp_path / "conf.yaml"
    conf.write_text(
        "frontend: !new:reallm.frontends.log_mel.LogMelFrontend\n    sample_rate: 8000\n    mels: 20\n"
        "system: !new:reallm.systems.ctc.CTC\n    frontend: !ref <frontend>\n"
        "    encoder: !new:reallm.encoders.lstm.LSTMEncoder\n        input_dim: 20\n"
        "    tokenizer: !new:reallm.tokenizers.character.CharacterTokenizer\n        path: not-yet.json\n"
    )
    manifest = tmp_path / "train.jsonl.gz"
    output = run_data("features", manifest, "--conf", conf, "--store", tmp_path / "features", "--out", manifest, "--jobs", 2)
    assert "features of 3 cuts by log_mel-" in output
    for cut in read_cuts(manifest):
        array = cut.custom[FEATURES].load()
        assert array.dtype == np.float16 and array.shape == (-(-round(cut.duration * RATE) // 80) + 2, 20)
