"""The samples of a cut are lhotse's, and manifests are whole or refused."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from lhotse.supervision import AlignmentItem

from reallm.data import cuts as module
from reallm.data.cuts import load_audio, read_cuts, speaker_of, text_of, write_cuts
from reallm.errors import InputError


def make_cut(folder: Path, channels: int = 1, rate: int = 8000, seconds: float = 2.0, name: str = "a") -> Cut:
    path = folder / f"{name}.wav"
    soundfile.write(path, np.random.default_rng(channels).uniform(-0.5, 0.5, (round(seconds * rate), channels)), rate)
    return Recording.from_file(path, recording_id=name).to_cut()


def test_samples_are_lhotses(tmp_path: Path) -> None:
    cut, noise = make_cut(tmp_path), make_cut(tmp_path, name="noise", seconds=3)
    piece = cut.truncate(offset=0.25, duration=0.5)
    mixes = [
        cut,
        piece,
        piece.perturb_speed(1.1),
        piece.perturb_volume(0.3),
        piece.append(cut),
        noise.perturb_volume(0.01).mix(piece, offset_other_by=0.4, snr=-20),
        piece.pad(duration=1.0),
        piece.pad(duration=1.0, direction="left"),
        noise.mix(piece, snr=5).append(cut).truncate(offset=0.3),
        noise.mix(piece.perturb_speed(0.9), snr=5).perturb_volume(0.5),
        noise.mix(piece, snr=5).pad(duration=5.0, direction="left"),
        piece.pad(duration=1.0, direction="left").mix(noise, snr=5),
        piece.resample(16000),
        piece.move_to_memory(),
    ]
    for mix in mixes:
        np.testing.assert_array_equal(load_audio(mix), mix.load_audio()[0])
        np.testing.assert_array_equal(load_audio(mix), mix.load_audio()[0])  # from memory


def test_channels_are_averaged(tmp_path: Path) -> None:
    cut = make_cut(tmp_path, channels=2)
    np.testing.assert_allclose(load_audio(cut), cut.load_audio().mean(axis=0))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_resampled(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    samples = load_audio(Recording.from_file(path).to_cut(), 8000)
    assert samples.shape == (8000,) and samples.dtype == np.float32
    np.testing.assert_allclose(samples[500:-500], 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)[500:-500], atol=1e-2)


def test_memory_is_bounded() -> None:
    cache = module._AudioCache(capacity=1000)
    for key in range(10):
        cache.get(key, lambda: np.zeros(100, dtype=np.float32))
    assert cache.size <= 1000 and len(cache.arrays) == 2
    kept = cache.get(9, lambda: np.ones(1, dtype=np.float32))
    assert kept.sum() == 0 and not kept.flags.writeable


def test_audio_that_is_gone_or_not_finite(tmp_path: Path) -> None:
    cut = make_cut(tmp_path)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(InputError, match=f"cut '{cut.id}': no audio file {tmp_path / 'a.wav'}: put it back"):
        load_audio(cut)
    soundfile.write(tmp_path / "b.wav", np.full(800, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN"):
        load_audio(Recording.from_file(tmp_path / "b.wav").to_cut())


def test_text_and_speaker(tmp_path: Path) -> None:
    cut = make_cut(tmp_path)
    assert (text_of(cut), speaker_of(cut)) == ("", "")


def test_manifest_round_trip_is_reproducible(tmp_path: Path) -> None:
    cuts = [make_cut(tmp_path, name="é")]
    assert write_cuts(cuts, tmp_path / "x.jsonl.gz") == 1
    write_cuts(cuts, tmp_path / "y.jsonl.gz")
    content = (tmp_path / "x.jsonl.gz").read_bytes()
    assert content == (tmp_path / "y.jsonl.gz").read_bytes()
    assert content[4:8] == bytes(4)  # gzip's time of writing
    assert [c.id for c in read_cuts(tmp_path / "x.jsonl.gz")] == [c.id for c in cuts]


def test_manifests_are_lhotses(tmp_path: Path) -> None:
    cut, noise = make_cut(tmp_path), make_cut(tmp_path, name="noise", seconds=3)
    cut.supervisions = [SupervisionSegment("s", "a", 0.0, 1.0, text="x", custom={"n": [1]}, alignment={"word": [AlignmentItem("x", 0, 1)]})]
    cut.custom = {"epoch": 3}
    cuts = [cut, noise.perturb_volume(0.5).mix(cut, snr=5.0).pad(duration=5.0), cut.perturb_speed(1.1), make_cut(tmp_path, 2, name="b")]
    write_cuts(cuts, tmp_path / "ours.jsonl.gz")
    theirs = [deserialize_item(json.loads(json.dumps(c.to_dict()))) for c in cuts]
    assert list(read_cuts(tmp_path / "ours.jsonl.gz")) == theirs


def test_broken_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the data stage first"):
        read_cuts(tmp_path / "none.jsonl.gz")
    write_cuts([], tmp_path / "empty.jsonl.gz")
    with pytest.raises(InputError, match="holds no cuts"):
        read_cuts(tmp_path / "empty.jsonl.gz")
    write_cuts([make_cut(tmp_path)] * 2000, tmp_path / "whole.jsonl.gz")
    content = (tmp_path / "whole.jsonl.gz").read_bytes()
    (tmp_path / "half.jsonl.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jsonl.gz").write_bytes(gzip.compress(b"hello\n"))
    (tmp_path / "zip.jsonl.gz").write_bytes(b"hello\n")
    for name in ("half", "text", "zip"):
        with pytest.raises(InputError, match="is broken after"):
            read_cuts(tmp_path / f"{name}.jsonl.gz")
    for number, line in enumerate((b'{"id": "a", "duration": 1.0}', b"[1]")):
        (tmp_path / f"other{number}.jsonl.gz").write_bytes(gzip.compress(line))
        with pytest.raises(InputError, match="line 1 is not a lhotse cut: give a manifest that"):
            read_cuts(tmp_path / f"other{number}.jsonl.gz")
