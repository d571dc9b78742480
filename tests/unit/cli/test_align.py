"""``reallm align``: which weights of an experiment are taken."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import reallm.bundle
from reallm.aligners import corpus
from reallm.aligners.corpus import report_of
from reallm.bundle import load_teacher
from reallm.data.alignments import token_alignment
from reallm.data.cuts import read_cuts
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.aligners import LevelTeacher, write_strings
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


class Mortal(LevelTeacher):
    """To hear ``deadly`` in another process than that which made it is the end of that process, once."""

    def __init__(self, tokenizer: CharacterTokenizer, deadly: str, marker: Path) -> None:
        super().__init__(tokenizer)
        self.deadly, self.marker, self.home = deadly, marker, os.getpid()

    def log_probs(self, batch: Any) -> Any:
        if self.deadly in batch.ids and os.getpid() != self.home and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().log_probs(batch)


def test_whoever_aligns_each_utterance_is_there_once(exp: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(corpus, "SHARD", 2)
    tokenizer = CharacterTokenizer.tiny()
    cuts = write_strings(tmp_path / "cuts", tokenizer, ["the fox", "a lazy dog", "jumps", "over it"] * 4)
    teacher = Mortal(tokenizer, "0007", tmp_path / "died").eval()
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda system: teacher)
    options = ("align", exp, "--cuts", cuts, "--aligner", "ctc", "--backend", "torch")
    assert run(*options, "--out", tmp_path / "alone.jsonl.gz") == 0
    assert run(*options, "--out", tmp_path / "two.jsonl.gz", "--jobs", 2) == 2
    assert capsys.readouterr().err.count("\n") == 1 and (tmp_path / "died").exists(), "one of this machine's processes: the run ends"
    assert run(*options, "--out", tmp_path / "two.jsonl.gz", "--jobs", 2) == 0
    (tmp_path / "died").unlink()
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        assert run(*options, "--out", tmp_path / "cluster.jsonl.gz", "--dask", cluster.scheduler_address) == 0
    assert (tmp_path / "died").exists(), "a worker was killed"
    found = [list(read_cuts(tmp_path / f"{name}.jsonl.gz")) for name in ("alone", "two", "cluster")]
    assert [cut.id for cut in found[0]] == [cut.id for cut in read_cuts(cuts)] and len({cut.id for cut in found[0]}) == 16
    assert found[1] == found[0] == found[2]
    reports = [json.loads(report_of(tmp_path / f"{name}.jsonl.gz").read_text()) for name in ("alone", "two", "cluster")]
    assert reports[0]["utterances"] == 16 and reports[1] == reports[0] == reports[2]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")]
