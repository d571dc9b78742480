"""Whether a file is whole, whatever its length and format."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from reallm.data.examine import BLOCK_SAMPLES, BrokenAudio, check_whole, read_whole


def test_hours_of_audio_need_no_more_memory_than_minutes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(20 * BLOCK_SAMPLES, dtype=np.int16), 8000)
    tracemalloc.start()
    check_whole(tmp_path / "long.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK_SAMPLES * 4


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_whole_file_is_read_and_half_of_it_is_broken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (BLOCK_SAMPLES + 100, 2))
    soundfile.write(path, samples, 8000)
    check_whole(path)
    read, rate = read_whole(path)
    assert (read.shape, rate) == (samples.shape, 8000)
    if suffix != "ogg":
        assert np.abs(read - samples).max() < 1e-3
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(BrokenAudio):
            check_whole(path)


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
