"""The Conformer of SpeechBrain's streaming recipe against SpeechBrain's own modules, loaded from a checkpoint that SpeechBrain wrote."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reallm.encoders.speechbrain_conformer import SpeechBrainConformerEncoder, load_published
from reallm.errors import InputError
from reallm.frontends.speechbrain_fbank import SpeechBrainFbankFrontend
from reallm.protocols import ChunkSpec
from tests.dummies.speechbrain_checkpoint import SIZES, Published

MELS = 20


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("speechbrain"))


def ours(**settings: Any) -> tuple[SpeechBrainFbankFrontend, SpeechBrainConformerEncoder]:
    given = {**SIZES, "chunk_size": 4, "left": 8, **settings}
    return SpeechBrainFbankFrontend(8000, MELS, 32.0, fft=256).eval(), SpeechBrainConformerEncoder(MELS, **given).eval()


@torch.no_grad()
@pytest.mark.parametrize("chunk", [(4, 2), (3, 1), (5, 0), None])
def test_gives_the_encoder_output_of_speechbrain(published: Published, chunk: tuple[int, int] | None) -> None:
    frontend, encoder = ours()
    load_published(published.folder, frontend, encoder)
    feats, lens = 10 * torch.randn(3, 91, MELS) - 20, torch.tensor([91, 48, 5])
    spec = ChunkSpec(chunk[0], chunk[0] * chunk[1]) if chunk else None
    got, got_lens = encoder((feats - frontend.mean) / frontend.std, lens, spec)
    for row, length in enumerate(lens.tolist()):
        expected = published.encode(feats[row : row + 1, :length], chunk)[0]
        assert int(got_lens[row]) == len(expected)
        torch.testing.assert_close(got[row, : len(expected)], expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_gives_it_from_audio_too_streamed(published: Published) -> None:
    frontend, encoder = ours()
    load_published(published.folder, frontend, encoder)
    wav = 0.1 * torch.randn(1, 80 * 64)
    before = frontend.window_samples // 2 - frontend.frame_shift
    feats = published.features(torch.nn.functional.pad(wav, (before, 0)))[:, :64]
    expected = published.encode(feats, (4, 2))
    front, state = frontend.init_state(1), encoder.init_state(1)
    found = []
    for start in range(0, wav.size(1), 16 * 80):
        final = torch.tensor([start + 16 * 80 == wav.size(1)])
        x, lens, front = frontend.step(wav[:, start : start + 16 * 80], torch.tensor([16 * 80]), final, front)
        enc, enc_lens, state = encoder.step(x, lens, final, state)
        found.append(enc[:, : int(enc_lens)])
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-3, rtol=1e-3)


def test_checkpoints_that_do_not_fit_are_refused(published: Published, tmp_path: Path) -> None:
    for settings, message in (
        ({"layers": 1}, "more than 1 layers"),
        ({"layers": 3}, r"layers\.2\.' of the checkpoint does not fit"),
        ({"hidden": 41}, r"layers\.0\.' of the checkpoint does not fit.*size mismatch"),
    ):
        with pytest.raises(InputError, match=message):
            load_published(published.folder, *ours(**settings))
    with pytest.raises(InputError, match="has no mean of 16 features"):
        load_published(published.folder, SpeechBrainFbankFrontend.tiny(), ours()[1])
    with pytest.raises(InputError, match=r"has no normalizer\.ckpt"):
        load_published(tmp_path, *ours())
    (tmp_path / "normalizer.ckpt").write_text("hello")
    (tmp_path / "model.ckpt").write_text("hello")
    with pytest.raises(InputError, match="is no checkpoint of tensors"):
        load_published(tmp_path, *ours())
    for settings, message in (({"kernel": 4}, "kernel 4"), ({"heads": 5}, "5 heads of a model of width 24")):
        with pytest.raises(InputError, match=message):
            ours(**settings)
