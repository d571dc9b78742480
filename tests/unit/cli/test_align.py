"""``reallm align``: which weights of an experiment are taken."""

import json
import shutil
from pathlib import Path

import torch

from reallm.aligners.corpus import report_of
from reallm.bundle import load_teacher
from reallm.data.alignments import token_alignment
from reallm.data.cuts import read_cuts
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.aligners import write_strings
from tests.dummies.command import run


def aligned(system: Path, cuts: Path, out: Path) -> tuple[list[float], str]:
    """The scores of the cuts' alignments, and the teacher in the report."""
    assert run("align", system, "--cuts", cuts, "--out", out, "--backend", "torch") == 0
    scores = [alignment.score for cut in read_cuts(out) if (alignment := token_alignment(cut, 8000)) is not None]
    return scores, json.loads(report_of(out).read_text())["teacher"]


def test_an_export_meanwhile_changes_no_alignment(exp: Path, tmp_path: Path) -> None:
    cuts = write_strings(tmp_path / "cuts", CharacterTokenizer.tiny(), ["the fox", "a lazy dog"])
    before = aligned(exp, cuts, tmp_path / "before.jsonl.gz")
    assert run("export", exp, "--out", exp / "bundle", "--training-data", "noise", "--license", "CC0") == 0
    assert aligned(exp, cuts, tmp_path / "after.jsonl.gz") == before
    halved = aligned(exp / "bundle", cuts, tmp_path / "halved.jsonl.gz")
    assert len(halved[0]) == len(before[0]) == 2 and halved != before, "a bundle is taken where it is named"
    shutil.rmtree(exp / "checkpoints")
    assert aligned(exp, cuts, tmp_path / "alone.jsonl.gz") == halved, "and where there is nothing else"


def test_a_published_bundle_in_place_of_an_experiment(exp: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "shared" / "bundle"
    assert run("export", exp, "--out", bundle, "--training-data", "noise", "--license", "CC0", "--full-precision") == 0
    shared, own = load_teacher(tmp_path / "shared"), load_teacher(exp)
    assert isinstance(shared, torch.nn.Module) and isinstance(own, torch.nn.Module)
    assert all(torch.equal(weight, own.state_dict()[name]) for name, weight in shared.state_dict().items())
