"""Times on cuts stay cut-relative whatever lhotse does to the cut."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from reallm.data.alignments import (
    merge_supervisions,
    token_alignment,
    token_meta,
    with_token_alignment,
    with_words,
    words,
)
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.types import Alignment, Word

RATE = 8000
META = {"tokenizer": "abc", "backend": "torch", "version": "2"}


def make_cut(folder: Path, name: str, start: float = 0.5, sup_start: float = 0.25) -> MonoCut:
    """Two seconds from ``start`` of a recording of four, the supervision not at the cut's start."""
    path = folder / f"{name}.wav"
    soundfile.write(path, np.random.default_rng(len(name)).uniform(-0.1, 0.1, 4 * RATE), RATE)
    supervision = SupervisionSegment(f"{name}-s", name, sup_start, 1.5, text="one two", speaker="ada")
    return MonoCut(name, start, 2.0, 0, supervisions=[supervision], recording=Recording.from_file(path, recording_id=name))


def aligned(folder: Path, name: str = "a", **kwargs: float) -> Cut:
    cut = with_words(make_cut(folder, name, **kwargs), [Word("one", 0.5, 0.75), Word("two", 1.0, 1.5)])
    alignment = Alignment(
        torch.tensor([3, 7]), torch.tensor([4000, 8000]), torch.tensor([6000, 12000]), torch.tensor([-0.5, -1.5]).double(), RATE, -2.0
    )
    return with_token_alignment(cut, alignment, ["one", "▁two"], META)


def times(cut: Cut) -> list[tuple[str, float, float]]:
    return [(w.word, round(w.start, 6), round(w.end, 6)) for w in words(cut)]


def check(cut: Cut, expected: list[tuple[str, float, float]]) -> None:
    """Words and tokens of the cut lie at the expected times, up to one sample."""
    assert [w for w, _, _ in times(cut)] == [w for w, _, _ in expected]
    assert np.allclose([t[1:] for t in times(cut)], [t[1:] for t in expected], atol=1.01 / RATE)
    found = token_alignment(cut, RATE)
    assert found is not None
    assert found.token_ids.tolist() == [{"one": 3, "two": 7}[w] for w, _, _ in expected]
    assert np.allclose(found.start_samples, [t[1] * RATE for t in expected], atol=1.01)
    assert np.allclose(found.end_samples, [t[2] * RATE for t in expected], atol=1.01)
    assert found.scores.tolist() == [{"one": -0.5, "two": -1.5}[w] for w, _, _ in expected]


HERE = [("one", 0.5, 0.75), ("two", 1.0, 1.5)]


def moved(by: float, factor: float = 1.0) -> list[tuple[str, float, float]]:
    return [(w, a / factor + by, b / factor + by) for w, a, b in HERE]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cut = aligned(tmp_path)
    check(cut, HERE)
    found = token_alignment(cut, RATE)
    assert found is not None and found.score == -2.0 and found.sample_rate == RATE
    meta = token_meta(cut)
    assert meta is not None and meta["tokenizer"] == "abc" and meta["backend"] == "torch"


def test_integers_do_not_drift(tmp_path: Path) -> None:
    """Every sample position comes back as it was, at rates whose periods floats cannot hold."""
    cut = make_cut(tmp_path, "a", sup_start=0.0)
    for rate in (8000, 11025, 44100):
        start = torch.arange(0, 1000)
        alignment = Alignment(torch.zeros(1000).long(), start, start + 7, torch.zeros(1000).double(), rate)
        found = token_alignment(with_token_alignment(cut, alignment, ["x"] * 1000, META), rate)
        assert found is not None
        assert torch.equal(found.start_samples, start) and torch.equal(found.end_samples, start + 7)


def test_append(tmp_path: Path) -> None:
    a, b = aligned(tmp_path, "a"), aligned(tmp_path, "bb")
    check(a.append(b), moved(0) + moved(2))
    check(a.append(b).append(a), moved(0) + moved(2) + moved(4))


@pytest.mark.parametrize("direction, by", [("right", 0.0), ("left", 1.0), ("both", 0.5)])
def test_pad(tmp_path: Path, direction: str, by: float) -> None:
    check(aligned(tmp_path).pad(duration=3.0, direction=direction), moved(by))


def test_mix(tmp_path: Path) -> None:
    noise = make_cut(tmp_path, "noise").drop_supervisions()
    check(noise.mix(aligned(tmp_path), offset_other_by=0.3, snr=10), moved(0.3))


def test_truncate(tmp_path: Path) -> None:
    cut = aligned(tmp_path)
    check(cut.truncate(offset=0.375), moved(-0.375))
    check(cut.truncate(offset=0.375, duration=0.5), [("one", 0.125, 0.375)])
    check(cut.truncate(offset=0.6), [("two", 0.4, 0.9)])  # "one" was cut in half: it is not heard
    check(cut.append(cut).truncate(offset=1.75), [("one", 0.75, 1.0), ("two", 1.25, 1.75)])
    check(cut.pad(duration=3.0, direction="left").truncate(offset=1.25), moved(-0.25))


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed(tmp_path: Path, factor: float) -> None:
    cut = aligned(tmp_path)
    check(cut.perturb_speed(factor), moved(0, factor))
    check(cut.truncate(offset=0.375).perturb_speed(factor), moved(-0.375 / factor, factor))
    check(cut.append(cut).perturb_speed(factor), moved(0, factor) + moved(2 / factor, factor))
    check(cut.perturb_speed(factor).append(cut), moved(0, factor) + moved(cut.perturb_speed(factor).duration))


def test_merge(tmp_path: Path) -> None:
    a, b = aligned(tmp_path, "a"), aligned(tmp_path, "bb")
    merged = merge_supervisions(a.append(b).append(a))
    assert len(merged.supervisions) == 1
    assert merged.supervisions[0].text == "one two one two one two"
    check(merged, moved(0) + moved(2) + moved(4))
    check(merged.truncate(offset=0.375, duration=4.0), moved(-0.375) + moved(1.625))
    check(merged.perturb_speed(1.1), moved(0, 1.1) + moved(2 / 1.1, 1.1) + moved(4 / 1.1, 1.1))
    late = merge_supervisions(a.append(b).pad(duration=5.0, direction="left"))
    check(late, moved(1) + moved(3))
    found = token_alignment(merged, RATE)
    assert found is not None and found.score == -6.0


@pytest.mark.parametrize("policy", ["delimiter", "keep_first"])
def test_merge_by_lhotse_is_refused(tmp_path: Path, policy: str) -> None:
    """It forgets where the second supervision began: there is no right answer, so there must be no answer."""
    merged = aligned(tmp_path, "a").append(aligned(tmp_path, "bb")).merge_supervisions(merge_policy=policy)
    with pytest.raises(InputError, match=r"reallm\.data\.alignments\.merge_supervisions"):
        words(merged)
    with pytest.raises(InputError, match="merge_supervisions"):
        token_alignment(merged, RATE)


def test_jsonl_round_trip(tmp_path: Path) -> None:
    a, b = aligned(tmp_path, "a"), aligned(tmp_path, "bb")
    cuts = [a, a.append(b), b.truncate(offset=0.375, preserve_id=True), merge_supervisions(b.append(a))]
    cuts = [c.with_id(str(i)) for i, c in enumerate(cuts)]
    write_cuts(cuts, tmp_path / "cuts.jsonl.gz")
    for before, after in zip(cuts, read_cuts(tmp_path / "cuts.jsonl.gz"), strict=True):
        check(after, times(before))


def test_saved_audio_keeps_times(tmp_path: Path) -> None:
    """Written to a new file, the recording begins where the cut began; the supervision's start is what stays true."""
    check(aligned(tmp_path).save_audio(tmp_path / "new.wav"), HERE)
    check(aligned(tmp_path).move_to_memory(), HERE)


def test_realign_after_a_change(tmp_path: Path) -> None:
    """A second alignment, written after the cut was moved, leaves the first one right."""
    cut = aligned(tmp_path).truncate(offset=0.25)
    alignment = Alignment(torch.tensor([5]), torch.tensor([80]), torch.tensor([160]), torch.zeros(1).double(), RATE)
    again = with_token_alignment(cut, alignment, ["x"], META)
    assert times(again) == [("one", 0.25, 0.5), ("two", 0.75, 1.25)]
    found = token_alignment(again.pad(duration=3.0, direction="left"), RATE)
    assert found is not None and found.start_samples.tolist() == [80 + round(1.25 * RATE)]


def test_writing_leaves_the_cut_alone(tmp_path: Path) -> None:
    cut = make_cut(tmp_path, "a")
    with_words(cut, [Word("one", 0.5, 0.75)])
    assert cut.supervisions[0].alignment is None
    assert words(cut) == [] and token_alignment(cut, RATE) is None and token_meta(cut) is None


def test_alignments_of_other_corpora_are_relative_to_the_recording(tmp_path: Path) -> None:
    cut = make_cut(tmp_path, "a", start=0.5)
    cut.supervisions[0].alignment = {"word": [AlignmentItem("one", 0.75, 0.25)]}
    assert times(cut) == [("one", 0.25, 0.5)]
    assert times(cut.truncate(offset=0.125)) == [("one", 0.125, 0.375)]
    assert times(cut.pad(duration=3.0, direction="left")) == [("one", 1.25, 1.5)]


def test_writing_needs_one_supervision(tmp_path: Path) -> None:
    cut = aligned(tmp_path)
    with pytest.raises(InputError, match="2 supervisions"):
        with_words(cut.append(cut), [])


def test_tokenizers_do_not_mix(tmp_path: Path) -> None:
    a = aligned(tmp_path)
    alignment = token_alignment(a, RATE)
    assert alignment is not None
    b = with_token_alignment(make_cut(tmp_path, "bb"), alignment, ["one", "two"], {**META, "tokenizer": "other"})
    with pytest.raises(InputError, match="several tokenizers"):
        token_meta(a.append(b))
