"""Two alignments of one manifest side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reallm.aligners.compare import compare, main
from reallm.aligners.corpus import align_manifest
from reallm.aligners.ctc import CTCAligner
from reallm.data.alignments import token_alignment, with_token_alignment
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.aligners import LevelTeacher, write_strings


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    teacher = LevelTeacher(CharacterTokenizer.tiny())
    manifest = write_strings(tmp_path, teacher.tokenizer, ["the fox", "a dog", "jumps"])
    align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTCAligner.tiny())
    return tmp_path / "a.jsonl.gz"


def changed(aligned: Path, later: int = 0, score: float = 1.0) -> Path:
    """The alignment of the first cut moved by some samples, its score multiplied."""
    cuts = list(read_cuts(aligned))
    alignment = token_alignment(cuts[0], 8000)
    other = replace(alignment, start_samples=alignment.start_samples + later, score=alignment.score * score)
    pieces = [item.symbol for item in cuts[0].supervisions[0].alignment["token"]]
    cuts[0] = with_token_alignment(cuts[0], other, pieces, {"tokenizer": "t", "backend": "b", "version": "v"})
    path = aligned.with_name("b.jsonl.gz")
    write_cuts(cuts, path)
    return path


def test_equal(aligned: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(aligned), str(aligned)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "utterances": 3,
        "largest_score_difference": 0.0,
        "different_paths": [],
        "different_scores": [],
    }


def test_a_tie_is_another_path_of_the_same_score(aligned: Path):
    result = compare(aligned, changed(aligned, later=1))
    assert (result["different_paths"], result["different_scores"]) == (["0000"], [])


def test_another_score(aligned: Path):
    other = changed(aligned, score=1.00001)
    result = compare(aligned, other)
    assert (result["different_paths"], result["different_scores"]) == ([], ["0000"])
    assert result["largest_score_difference"] == pytest.approx(1e-5, rel=1e-3)
    assert main([str(aligned), str(other)]) == 1


def test_other_utterances(aligned: Path, capsys: pytest.CaptureFixture[str]):
    fewer = aligned.with_name("fewer.jsonl.gz")
    write_cuts(list(read_cuts(aligned))[1:], fewer)
    with pytest.raises(InputError, match="'0000' is in one of"):
        compare(aligned, fewer)
    assert main([str(aligned), str(fewer)]) == 2
    assert main([str(aligned)]) == 2
    assert "needs two manifests" in capsys.readouterr().err


@pytest.mark.k2
def test_k2_and_torch_on_a_manifest(aligned: Path):
    teacher = LevelTeacher(CharacterTokenizer.tiny(), sharpness=3.0)
    manifest = aligned.with_name("cuts.jsonl.gz")
    for backend in ("torch", "k2"):
        align_manifest(manifest, aligned.with_name(f"{backend}.jsonl.gz"), teacher, CTCAligner(backend))
    result = compare(aligned.with_name("torch.jsonl.gz"), aligned.with_name("k2.jsonl.gz"))
    assert result["utterances"] == 3 and result["largest_score_difference"] < 1e-6
