"""egs/librispeech: every stage of its run.sh on minutes of synthesized speech; and the real corpus's own files, as far as they are here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from reallm import resources
from reallm.aligners.corpus import teacher_id
from reallm.bundle import export, load_system, load_teacher
from reallm.cli import main
from reallm.data.alignments import token_alignment, token_meta
from reallm.data.cuts import read_cuts, text_of
from reallm.metrics.hypotheses import read_hypotheses
from reallm.registry import find
from reallm.streaming.decoding import ShardDecoder
from reallm.streaming.measurement import offline_text
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.initialize import stored_weights

RECIPE = resources.path("egs/librispeech/run.sh")
STAGES = ["download", "data", "tokenizer", "teacher", "align", "train", "export", "decode", "score", "report"]
PARTS = ["dev-clean", "test-other"]
WORDS = ["A", "BIRD", "CAME", "DOWN", "THE", "WALK", "HE", "DID", "NOT", "KNOW", "I", "SAW", "BIT", "AN", "ANGLE", "WORM", "IN", "HALVES"]


def write_text(folder: Path) -> Path:
    """train.txt, dev.txt and test.txt, of the words of one sentence in any order."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        lines = [" ".join(random.choice(WORDS, 4)) for _ in range(40)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(*options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    environment.pop("REALLM_DATA", None)
    command = ["bash", str(RECIPE), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def assert_aligned(exp: Path, split: str) -> None:
    """By the teacher that was trained here: every utterance, all of its text, in order and within the audio."""
    teacher = load_teacher(exp / "teacher")
    cuts = list(read_cuts(exp / f"align/{split}.jsonl.gz"))
    assert [cut.id for cut in cuts] == [cut.id for cut in read_cuts(exp / f"data/{split}.jsonl.gz")]
    for cut in cuts:
        alignment, meta = token_alignment(cut, 16000), token_meta(cut)
        assert alignment is not None and meta is not None and meta["teacher"] == teacher_id(teacher)
        assert teacher.tokenizer.decode(alignment.token_ids.tolist()) == text_of(cut)
        start, end = alignment.start_samples, alignment.end_samples
        assert (
            start[0] >= 0
            and (start <= end).all()
            and (start[:-1] <= start[1:]).all()
            and (end[:-1] <= end[1:]).all()
            and end[-1] <= cut.num_samples
        )


def losses(exp: Path) -> list[float]:
    """Of each epoch."""
    return [float(loss) for loss in re.findall(r"update \d+, loss ([\d.]+)", (exp / "train.log").read_text())]


def near_ties(system: Any) -> list[float]:
    """Is filled with how far the two best answers are apart, in log-probability, at each position that its greedy search decides."""
    found: list[float] = []
    choose = system.searcher.choose

    def note(scores: torch.Tensor, *rest: Any) -> torch.Tensor:
        best = scores.topk(2, dim=-1).values
        found.extend((best[:, 0] - best[:, 1]).tolist())
        chosen: torch.Tensor = choose(scores, *rest)
        return chosen

    system.searcher.choose = note
    return found


def assert_decoded(exp: Path, part: str) -> None:
    """As the parallel pass of what was trained has it, with the errors that jiwer counts."""
    folder, cuts = exp / "speech_reallm/decode" / part, list(read_cuts(exp / f"data/{part}.jsonl.gz"))
    hyps = {utterance.id: utterance for utterance in read_hypotheses(folder / "hyps.jsonl")}
    system = load_system(exp / "speech_reallm/bundle")
    apart = near_ties(system)
    for key, samples, rate in [ShardDecoder(system).audio(cut) for cut in cuts]:
        apart.clear()
        # Sums in another order decide otherwise where two answers are as good, which they may be for a model that hardly learned.
        assert offline_text(system, samples, rate) == hyps[key].text or min(apart) < 1e-4
        assert len(apart) > 10
    results = json.loads((folder / "results.json").read_text())
    assert results["errors"] == results["insertions"] + results["deletions"] + results["substitutions"]
    assert results["wer"] == pytest.approx(100 * jiwer.wer([text_of(c) for c in cuts], [hyps[c.id].text for c in cuts]), abs=0.001)


def test_every_stage_on_synthesized_speech(tmp_path: Path) -> None:
    """The budget is too small for words that are right: what is asserted is that each stage did its work on that of the one before."""
    exp = tmp_path / "exp"
    options = ["--config", "conf/small.sh", "--exp", exp, "--text", write_text(tmp_path / "text"), "--synthetic", "0.02"]
    options += ["--eval-utterances", 1, "--vocab", 30, "--teacher-epochs", 2, "--epochs", 2, "--nj", 1, "--parts", " ".join(PARTS)]
    done = run(*options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert sorted(p.name for p in (exp / ".done").iterdir() if not p.name.startswith(".")) == sorted(STAGES)
    assert (exp / "corpus/LibriSpeech/train-clean-100").is_dir() and (exp / "corpus/LibriSpeech/SYNTHETIC").is_file()
    plain, perturbed = (list(read_cuts(exp / f"align/{name}.jsonl.gz")) for name in ("train", "train_sp"))
    assert len(perturbed) == 3 * len(plain) > 30
    for split in ("train", *PARTS):
        assert_aligned(exp, split)
    for model in ("teacher", "speech_reallm"):
        first, second = losses(exp / model)
        assert second < first
    teacher, student, bundle = (stored_weights(exp / name) for name in ("teacher", "speech_reallm", "speech_reallm/bundle"))
    parameters = [name for name in student if name.startswith("encoder.") and name.endswith((".weight", ".bias"))]
    moved = max(float((student[name] - teacher[name]).abs().max()) for name in parameters)
    assert 0 < moved < 0.02, "it begins with the teacher's encoder, and few updates do not lead far"
    for name in student.keys() & bundle.keys():
        torch.testing.assert_close(bundle[name].to(student[name].dtype), student[name], atol=1e-3, rtol=1e-3)
    for part in PARTS:
        assert_decoded(exp, part)
        results = json.loads((exp / f"speech_reallm/decode/{part}/results.json").read_text())
        assert (results["system"], results["split"], results["words"]) == ("speech_reallm", part, 4)
        assert "SYNTHETIC" in results["corpus"]["kind"] and results["normalization"] == "librispeech"
        report = json.loads((exp / f"align/{part}.report.json").read_text())
        assert results["reference_times"] == " ".join(["ctc", report["backend"], report["version"], report["teacher"][:12]]).replace(
            "  ", " "
        )
    assert "| licence | synthesized with espeak-ng |" in (exp / "speech_reallm/bundle/README.md").read_text()
    assert list((exp / "speech_reallm/report").glob("*.png"))
    again = run(*options)
    assert again.returncode == 0 and again.stdout.count("done before") == len(STAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "speech_realm"], "error: --system 'speech_realm': of aed "),
        (["--teacher", "hmm"], "error: --teacher 'hmm': ctc or rnnt"),
    ],
)
def test_what_it_refuses(tmp_path: Path, options: list[str], message: str) -> None:
    done = run("--exp", tmp_path / "exp", *options)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(message), done.stderr


def reallm(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code in (0, None)


def test_real_utterances_are_aligned_and_decoded(real_data: Path, tmp_path: Path) -> None:
    """By a model that was never trained: what is tried is the way of the recordings through every verb."""
    if not (real_data / "librispeech").is_dir():
        pytest.skip(f"no LibriSpeech in {real_data}")
    reallm("data", "librispeech", "--corpus", real_data / "librispeech", "--subset", "--out", tmp_path / "data")
    cuts = tmp_path / "data/test-clean.jsonl.gz"
    reallm("tokenizer", "character", "--train", cuts, "--out", tmp_path / "characters.json")
    torch.manual_seed(0)
    encoder = find("encoder", "conformer").tiny()
    frontend = find("frontend", "log_mel")(sample_rate=16000, mels=encoder.input_dim)
    system = find("system", "ctc")(frontend, encoder, CharacterTokenizer(tmp_path / "characters.json"), flush_periods=4)
    export(system, tmp_path / "bundle", {"title": "untrained", "license": "none", "training_data": "none"})
    reallm("align", tmp_path / "bundle", "--cuts", cuts, "--out", tmp_path / "align/test-clean.jsonl.gz")
    assert json.loads((tmp_path / "align/test-clean.report.json").read_text())["failed"] == 0
    reallm("decode", tmp_path / "bundle", "--cuts", cuts, "--out", tmp_path / "decode", "--compare-offline")
    timed = ["--times", tmp_path / "align/test-clean.jsonl.gz", "--normalize", "librispeech"]
    reallm("score", tmp_path / "decode/hyps.jsonl", "--cuts", cuts, "--out", tmp_path / "results.json", *timed)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["utterances"], results["words"], results["corpus"]["kind"]) == (4, 58, "real recordings")
    assert results["seconds_of_audio"] == pytest.approx(sum(cut.duration for cut in read_cuts(cuts)), abs=0.1)
    assert results["corpus"]["licence"].startswith("CC BY 4.0")
