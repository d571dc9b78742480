"""Whether a file is whole, whatever its length and format."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from reallm.data import examine
from reallm.data.examine import BLOCK_SAMPLES, BrokenAudio, check_whole, read_whole
from reallm.data.lengths import declared_samples
from tests.dummies.data import write_flac_of_unknown_length


def test_hours_of_audio_need_no_more_memory_than_minutes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(20 * BLOCK_SAMPLES, dtype=np.int16), 8000)
    tracemalloc.start()
    check_whole(tmp_path / "long.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK_SAMPLES * 4


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_a_whole_file_is_read_and_half_of_it_is_broken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (BLOCK_SAMPLES + 100, 2))
    soundfile.write(path, samples, 8000)
    check_whole(path)
    read, rate = read_whole(path)
    assert (read.shape, rate) == (samples.shape, 8000)
    assert np.abs(read - samples).max() < 1e-3
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BrokenAudio, match=rf"^truncated: \d+ of {len(samples)} samples|^damaged: it cannot be decoded"):
        check_whole(path)


def test_blocks_of_an_mp3_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.mp3", random.normal(size=32000) * np.repeat(random.uniform(0, 0.3, 20), 1600), 16000)
    monkeypatch.setattr(examine, "BLOCK_SAMPLES", 4000)
    samples, _ = read_whole(tmp_path / "a.mp3")
    assert capfd.readouterr().err == "", "libmpg123 writes there"
    np.testing.assert_allclose(samples[:, 0], soundfile.read(tmp_path / "a.mp3", dtype="float32")[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_its_end_is_broken(subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8 * 8000), 8000, format="OGG", subtype=subtype)
    check_whole(path)
    content = path.read_bytes()
    for size in (len(content) // 2, len(content) - 10, content.rindex(b"OggS"), content.rindex(b"OggS") + 20):
        path.write_bytes(content[:size])
        with pytest.raises(BrokenAudio, match=r"^truncated: the end of its Ogg stream is missing$|^damaged"):
            check_whole(path)


def test_flac_of_unknown_length_is_said_to_be_that(tmp_path: Path) -> None:
    write_flac_of_unknown_length(tmp_path / "a.flac", np.zeros(20000))
    with pytest.raises(BrokenAudio, match=r"^its header does not say how long it is"):
        check_whole(tmp_path / "a.flac")


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("WAV", "ULAW"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT")],
)
def test_what_a_header_claims(format: str, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((1001, 2), 0.1), 8000, format=format, subtype=subtype)
    check_whole(path)
    assert declared_samples(path, 0) == 1001
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(BrokenAudio, match=r"truncated: \d+ of 1001 samples"):
        check_whole(path)
    path.write_bytes(content[:20])
    assert declared_samples(path, 7) == 7


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_header_written_before_the_length_was_known_claims_nothing(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1001, 0.1), 8000)
    content = path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + size.to_bytes(4, "little") + content[place + 4 :])
    assert declared_samples(path, 1001) == 1001
    check_whole(path)


def test_an_aiff_header_written_before_the_length_was_known_claims_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.aiff"
    soundfile.write(path, np.full(1001, 0.1), 8000)
    content = path.read_bytes()
    for name, offset, size in ((b"SSND", 4, 0x7F000008), (b"COMM", 10, 0x7F000000 // 2)):
        place = content.index(name) + offset
        content = content[:place] + size.to_bytes(4, "big") + content[place + 4 :]
    path.write_bytes(content)
    assert declared_samples(path, 1001) == 1001


def test_what_is_wrong_is_said_without_the_path(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello" * 20)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(9, np.nan), 8000, subtype="FLOAT")
    for name, reason in {
        "none": "no such file",
        "text": "not audio that soundfile reads .Format not recognised..",
        "empty": "empty",
        "nan": "holds NaN",
    }.items():
        with pytest.raises(BrokenAudio, match=f"^{reason}"):
            check_whole(tmp_path / f"{name}.wav")
