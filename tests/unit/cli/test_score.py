"""``reallm score`` with normalized words, and with word times that a teacher aligned."""

import json
from pathlib import Path

import pytest
import torch
from lhotse.cut import Cut

from reallm.cli.score import score
from reallm.data.alignments import with_token_alignment, with_words
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.metrics.hypotheses import Recognized, write_hypotheses
from reallm.types import Alignment, Word
from tests.dummies.command import run_data
from tests.dummies.own_data import table, write_audio

RATE = 16000


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One utterance of a second, and beside it what was recognized."""
    write_audio(tmp_path, ["u"])
    run_data("tsv", table(tmp_path / "test.tsv", [("path", "text"), ("u.wav", "IT'S LATE")]), "--out", tmp_path)
    words = [Word("It's", 0.1, 0.3, 0.9, 0.5), Word("late.", 0.4, 0.7, 0.9, 1.0)]
    write_hypotheses(tmp_path / "hyps.jsonl", [Recognized("u", "It's late.", words, 1.0)])
    return tmp_path / "test.jsonl.gz"


def scored(manifest: Path, **options: object) -> dict[str, object]:
    score(manifest.parent / "hyps.jsonl", manifest, manifest.parent / "results.json", **options)  # type: ignore[arg-type]
    return dict(json.loads((manifest.parent / "results.json").read_text()))


def test_normalization_is_stated(manifest: Path) -> None:
    assert scored(manifest).items() >= {"errors": 2, "normalization": "none", "emission_delay_ms": None}.items()
    assert scored(manifest, normalize="librispeech").items() >= {"errors": 0, "normalization": "librispeech"}.items()


def test_hypotheses_of_nothing_are_refused(manifest: Path) -> None:
    (manifest.parent / "hyps.jsonl").write_text("")
    write_cuts([aligned(cut) for cut in read_cuts(manifest)], manifest.parent / "aligned.jsonl.gz")
    for options in ({}, {"times": manifest.parent / "aligned.jsonl.gz"}):
        with pytest.raises(InputError, match=r"hyps\.jsonl holds no hypotheses: decode again"):
            scored(manifest, **options)


META = {"tokenizer": "t", "aligner": "ctc", "backend": "k2", "version": "1"}


def aligned(cut: Cut, **meta: str) -> Cut:
    """Pieces of words, as sentencepiece has them: the words end at 0.25 and 0.8 seconds."""
    ends = torch.tensor([3000, 4000, 12800])
    times = Alignment(torch.tensor([1, 2, 3]), torch.tensor([1600, 3000, 6400]), ends, torch.zeros(3).double(), RATE)
    return with_token_alignment(cut, times, ["IT", "'S", " LATE"], {**META, **meta})


def test_times_of_a_teacher(manifest: Path) -> None:
    (cut,) = read_cuts(manifest)
    write_cuts([aligned(cut), aligned(cut.with_id("other"))], manifest.parent / "aligned.jsonl.gz")
    results = scored(manifest, normalize="librispeech", times=manifest.parent / "aligned.jsonl.gz")
    assert (results["reference_times"], results["reference_times_cuts"]) == ("ctc k2 1", 1)
    assert results["emission_delay_ms"]["mean"] == pytest.approx((250 + 200) / 2)  # type: ignore[index]
    write_cuts([aligned(cut, teacher="0123456789abcdef")], manifest.parent / "aligned.jsonl.gz")
    assert scored(manifest, times=manifest.parent / "aligned.jsonl.gz")["reference_times"] == "ctc k2 1 0123456789ab", "whose it is"
    with pytest.raises(InputError, match=r"--times .*test.jsonl.gz: cut 'u' has no token alignment"):
        scored(manifest, times=manifest)


def test_times_of_other_cuts_or_of_several_aligners_are_refused(manifest: Path) -> None:
    (cut,) = read_cuts(manifest)
    times = manifest.parent / "aligned.jsonl.gz"
    write_cuts([aligned(cut.with_id("other"))], times)
    with pytest.raises(InputError, match="has none of the cuts that are scored, such as 'u': align the manifest of --cuts"):
        scored(manifest, times=times)
    write_cuts([aligned(cut), aligned(cut.with_id("other"), aligner="rnnt")], times)
    with pytest.raises(InputError, match="was aligned by ctc k2 1 and by rnnt k2 1: align all of it alike"):
        scored(manifest, times=times)
    write_cuts([aligned(cut, teacher="0123456789abcdef"), aligned(cut.with_id("other"), teacher="fedcba9876543210")], times)
    with pytest.raises(InputError, match="was aligned by ctc k2 1 0123456789ab and by ctc k2 1 fedcba987654: align all of it alike"):
        scored(manifest, times=times)
    write_cuts([aligned(cut).truncate(duration=0.5)], times)
    with pytest.raises(InputError, match=r"tokens of cut '.*' lie outside of it"):
        scored(manifest, times=times)
    assert not (manifest.parent / "results.json").exists()


def test_words_whose_times_are_known_keep_them(manifest: Path) -> None:
    (cut,) = read_cuts(manifest)
    write_cuts([aligned(cut)], manifest.parent / "aligned.jsonl.gz")
    write_cuts([with_words(cut, [Word("IT'S", 0.1, 0.4, 1.0), Word("LATE", 0.4, 0.9, 1.0)])], manifest)
    results = scored(manifest, normalize="librispeech", times=manifest.parent / "aligned.jsonl.gz")
    assert results["emission_delay_ms"]["mean"] == pytest.approx(100)  # type: ignore[index]
    assert "reference_times" not in results
