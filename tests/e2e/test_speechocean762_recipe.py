"""egs/speechocean762: every stage of its run.sh with conf/ci.sh, on some of the real recordings. Nothing is learned."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reallm import resources
from reallm.bundle import load_system
from reallm.data.cuts import read_cuts, speaker_of, text_of
from reallm.metrics.hypotheses import read_hypotheses
from tests.dummies.own_data import table

RECIPE = resources.path("egs/speechocean762/run.sh")
STAGES = ["data", "synth", "tokenizer", "teacher", "align", "pretrain", "finetune", "export", "decode", "score", "report"]
SPEAKERS = {"train": 2, "test": 1}  # of each age
UTTERANCES = 4  # of each speaker
PANGRAM = ["PACK", "MY", "BOX", "WITH", "FIVE", "DOZEN", "LIQUOR", "JUGS"]


def some_of(corpus: Path, folder: Path) -> Path:
    """A few utterances of a few adults and children of each part."""
    folder.mkdir()
    for part, most in SPEAKERS.items():
        with (corpus / f"{part}.tsv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        found: dict[bool, dict[str, list[tuple[str, ...]]]] = {True: {}, False: {}}
        for row in rows:
            speakers = found[int(row["age"]) >= 16]
            if row["speaker"] in speakers or len(speakers) < most:
                speakers.setdefault(row["speaker"], []).append(tuple(row.values()))
        chosen = [row for speakers in found.values() for lines in speakers.values() for row in lines[:UTTERANCES]]
        table(folder / f"{part}.tsv", [tuple(rows[0]), *chosen])
        (folder / part).symlink_to(corpus / part)
    return folder


def write_text(folder: Path) -> Path:
    """What is synthesized: sentences that have every letter, so that the tokenizer knows whatever the recordings say."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        lines = [" ".join(random.permutation(PANGRAM)) for _ in range(20)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(*options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    command = ["bash", str(RECIPE), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_stage_on_real_recordings(real_data: Path, tmp_path: Path) -> None:
    corpus = real_data / "speechocean762"
    if not corpus.is_dir():
        pytest.skip(f"no speechocean762 in {real_data}")
    exp = tmp_path / "exp"
    options = [
        "--config",
        "conf/ci.sh",
        "--data",
        some_of(corpus, tmp_path / "some"),
        "--subset",
        "--exp",
        exp,
        "--dev-speakers",
        2,
        "--nj",
        1,
    ]
    options += ["--text", write_text(tmp_path / "text"), "--vocab", 34, "--hours", 0.005, "--easy-hours", 0.005]
    options += ["--systems", "speech_reallm", "--tests", "test-child", "--tunables", "time_jitter=1", "--speeds", 0.9]
    done = run(*options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert sorted(p.name for p in (exp / ".done").iterdir() if not p.name.startswith(".")) == sorted(STAGES)
    cuts = {split: list(read_cuts(exp / f"data/{split}.jsonl.gz")) for split in ("train", "dev", "test-child")}
    assert {split: (len({speaker_of(c) for c in found}), len(found)) for split, found in cuts.items()} == {
        "train": (2, 2 * UTTERANCES),
        "dev": (2, 2 * UTTERANCES),
        "test-child": (1, UTTERANCES),
    }
    aligned = list(read_cuts(exp / "align/train.jsonl.gz"))
    assert [cut.id for cut in aligned] == [name for cut in cuts["train"] for name in (cut.id, f"{cut.id}_sp0.9")]
    system = load_system(exp / "speech_reallm.1/bundle")
    assert (system.time_jitter, system.delay) == (1, 1)
    for name, chunk in (("test-child", 8), ("test-child.chunk4", 4)):
        folder = exp / "speech_reallm.1/decode" / name
        assert len(list(read_hypotheses(folder / "hyps.jsonl"))) == 3
        results = json.loads((folder / "results.json").read_text())
        assert (results["system"], results["utterances"]) == ("speech_reallm", 3)
        assert results["settings"].get("encoder.chunk_size", 8) == chunk
    results = json.loads((exp / "speech_reallm.1/decode/test-child/results.json").read_text())
    assert results["corpus"]["kind"] == "real recordings"
    assert results["words"] == sum(len(text_of(cut).split()) for cut in cuts["test-child"][:3])
    assert list((exp / "speech_reallm.1/report").glob("*.png"))
    again = run(*options)
    assert again.returncode == 0 and again.stdout.count("done before") == len(STAGES)
