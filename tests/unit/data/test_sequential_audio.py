"""Audio in pieces is the audio of the whole, also where a decoder keeps something from frame to frame."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from reallm.data.sequential_audio import SequentialAudio


@pytest.mark.parametrize("suffix, rate", [("wav", 8000), ("flac", 8000), ("ogg", 16000), ("mp3", 16000), ("mp3", 44100)])
def test_pieces_are_the_whole(suffix: str, rate: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bursts = np.repeat(random.uniform(0, 0.3, 30), rate // 10)  # frames of unlike size, which borrow bits from each other
    soundfile.write(tmp_path / f"a.{suffix}", random.normal(size=(3 * rate, 2)) * bursts[:, None], rate)
    whole, _ = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32")
    for size in (137, rate // 50, 1152, rate):
        pieces = []
        with SequentialAudio(tmp_path / f"a.{suffix}") as audio:
            while len(piece := audio.read(size, dtype="float32")):
                pieces.append(piece)
        assert {len(piece) for piece in pieces[:-1]} == {size}
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)
