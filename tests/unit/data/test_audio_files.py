"""The files of a cut, and what is said when one of them is gone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording

from reallm.data.cuts import audio_files, load_audio
from reallm.errors import InputError


def test_a_missing_file_is_named_in_padded_and_mixed_cuts_too(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.full(800, 0.1), 8000)
    a, b = (Recording.from_file(tmp_path / name).to_cut() for name in ("a.wav", "b.wav"))
    padded, mixed = a.pad(duration=0.5, direction="both"), b.mix(a).pad(duration=0.5)
    assert audio_files(padded) == [tmp_path / "a.wav"]
    assert sorted(audio_files(mixed)) == [tmp_path / "a.wav", tmp_path / "b.wav"]
    (tmp_path / "a.wav").unlink()
    for cut in (a, padded, mixed):
        with pytest.raises(InputError, match=r"no audio file .*a\.wav: put it back"):
            load_audio(cut)
