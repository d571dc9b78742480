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
from reallm.aligners.corpus import report_of, smaller_batches
from reallm.bundle import load_teacher
from reallm.data.alignments import token_alignment
from reallm.data.cuts import read_cuts
from reallm.jobs import Workers
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


class Greedy(LevelTeacher):
    """Has no memory for a batch of more than so many seconds, padding included."""

    def __init__(self, tokenizer: CharacterTokenizer, seconds: float) -> None:
        super().__init__(tokenizer)
        self.seconds = seconds

    def log_probs(self, batch: Any) -> Any:
        if batch.wav.numel() > self.seconds * self.sample_rate:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().log_probs(batch)


def advised(said: str) -> str:
    """The seconds of a batch that one line of an error tells to take."""
    assert said.startswith("reallm: error: not enough memory on cpu for a batch of ") and said.count("\n") == 1, said
    return said.partition("take --batch-seconds ")[2].split()[0]


def test_batches_that_memory_has_no_room_for_are_made_smaller_as_it_says(
    exp: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "SHARD", 4)
    tokenizer = CharacterTokenizer.tiny()
    cuts = write_strings(tmp_path / "cuts", tokenizer, ["the fox", "a lazy dog", "jumps", "over it"] * 2)
    longest = max(cut.duration for cut in read_cuts(cuts))
    teacher: Any = LevelTeacher(tokenizer).eval()
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda system: teacher)
    options = ("align", exp, "--cuts", cuts, "--aligner", "ctc", "--backend", "torch")
    assert run(*options, "--out", tmp_path / "all.jsonl.gz") == 0
    teacher = Greedy(tokenizer, 2.5 * longest).eval()
    out, seconds = ("--out", tmp_path / "a.jsonl.gz"), "300"
    while (code := run(*options, *out, "--batch-seconds", seconds)) == 2:
        now, seconds = seconds, advised(said := capsys.readouterr().err)
        assert said.endswith(f"take --batch-seconds {seconds} (now {float(now):g}); what is done is kept\n") and float(seconds) < float(now)
    assert code == 0 and longest < float(seconds) < 300, "smaller, but not by more than need be"
    assert list(read_cuts(tmp_path / "a.jsonl.gz")) == list(read_cuts(tmp_path / "all.jsonl.gz"))
    teacher = Greedy(tokenizer, 0.9 * longest).eval()
    assert run(*options, "--out", tmp_path / "b.jsonl.gz", "--batch-seconds", 0.1) == 2
    said = capsys.readouterr().err
    assert said.startswith("reallm: error: not enough memory on cpu for utterance '000") and "--batch-seconds" not in said
    for wrong in ("0", "-1", "nan"):
        assert run(*options, *out, "--batch-seconds", wrong) == 2
        assert capsys.readouterr().err.startswith(f"reallm: error: --batch-seconds {wrong}: give the seconds of audio ")


def test_what_else_helps_depends_on_who_aligns() -> None:
    for workers, way in (
        (Workers(), ""),
        (Workers(4), ", or fewer --jobs than 4"),
        (Workers(dask="tcp://there:1"), ", or workers of --dask "),
    ):
        assert smaller_batches(300.0, 149.96, workers).startswith(f"take --batch-seconds 150.0 (now 300){way}")


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
        greedy: Any = Greedy(tokenizer, 0.5).eval()
        monkeypatch.setattr(reallm.bundle, "load_teacher", lambda system: greedy)
        refused = run(*options, "--out", tmp_path / "refused.jsonl.gz", "--dask", cluster.scheduler_address, "--batch-seconds", 9)
        helps = f" (now 9), or workers of --dask {cluster.scheduler_address} with more memory; what is done is kept\n"
        assert refused == 2 and float(advised(said := capsys.readouterr().err)) < 9 and said.endswith(helps)
    assert (tmp_path / "died").exists(), "a worker was killed"
    found = [list(read_cuts(tmp_path / f"{name}.jsonl.gz")) for name in ("alone", "two", "cluster")]
    assert [cut.id for cut in found[0]] == [cut.id for cut in read_cuts(cuts)] and len({cut.id for cut in found[0]}) == 16
    assert found[1] == found[0] == found[2]
    reports = [json.loads(report_of(tmp_path / f"{name}.jsonl.gz").read_text()) for name in ("alone", "two", "cluster")]
    assert reports[0]["utterances"] == 16 and reports[1] == reports[0] == reports[2]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".parts")]
