"""Cuts at other speeds, and the times of what was said in them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from reallm.data.alignments import token_alignment, with_token_alignment, words
from reallm.data.cuts import load_audio, read_cuts, write_cuts
from reallm.data.speed import with_speeds
from reallm.errors import InputError
from reallm.types import Alignment
from tests.dummies.command import run_data

RATE = 16000
BEEP = (8000, 9600)  # samples


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    """Two seconds with one beep, whose times are a token's, and a word's as lhotse's own corpora have it."""
    audio = np.zeros(2 * RATE)
    audio[slice(*BEEP)] = 0.5
    soundfile.write(tmp_path / "a.flac", audio, RATE)
    cut = Recording.from_file(tmp_path / "a.flac").to_cut()
    word = AlignmentItem("BEEP", BEEP[0] / RATE, (BEEP[1] - BEEP[0]) / RATE)
    cut.supervisions = [SupervisionSegment("a", "a", 0, 2, text="BEEP", alignment={"word": [word]})]
    return cut


def test_tokens_and_words_are_where_the_sound_is(cut: Cut, tmp_path: Path) -> None:
    times = Alignment(torch.tensor([3]), torch.tensor([BEEP[0]]), torch.tensor([BEEP[1]]), torch.zeros(1).double(), RATE)
    aligned = with_token_alignment(cut, times, ["BEEP"], {"tokenizer": "t", "backend": "b", "version": "1"})
    write_cuts([aligned], tmp_path / "in.jsonl.gz")
    assert "3 cuts" in run_data("speed", tmp_path / "in.jsonl.gz", "--out", tmp_path / "out.jsonl.gz", "--factor", "0.9", "--factor", "1.1")
    found = list(read_cuts(tmp_path / "out.jsonl.gz"))
    assert [c.id for c in found] == ["a", "a_sp0.9", "a_sp1.1"]
    for one, factor in zip(found, (1, 0.9, 1.1), strict=True):
        loud = np.flatnonzero(np.abs(load_audio(one)) > 0.25)
        alignment = token_alignment(one, RATE)
        assert alignment is not None
        assert abs(loud[0] - alignment.start_samples.item()) < 20 and abs(loud[-1] - alignment.end_samples.item()) < 20
        assert loud[0] == pytest.approx(BEEP[0] / factor, abs=20)
        (word,) = words(one)
        assert (word.start, word.end) == pytest.approx((loud[0] / RATE, loud[-1] / RATE), abs=0.002)


def test_words_that_lhotse_read_itself(cut: Cut) -> None:
    for one, factor in zip(with_speeds([cut], [0.9, 1.1]), (1, 0.9, 1.1), strict=True):
        assert words(one)[0].start == pytest.approx(BEEP[0] / RATE / factor, abs=1e-3)


@pytest.mark.parametrize("factors", [[1.0], [0.9, 0.9], [0.1], [3]])
def test_speeds_that_make_no_sense(cut: Cut, factors: list[float]) -> None:
    with pytest.raises(InputError, match="speed factors"):
        list(with_speeds([cut], factors))
