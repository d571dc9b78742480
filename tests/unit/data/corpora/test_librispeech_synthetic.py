"""The synthesized corpus lies as LibriSpeech does, and nobody who speaks in training speaks anywhere else."""

from pathlib import Path

import numpy as np
import pytest

from reallm.data.corpora.librispeech import EVALUATION, transcripts
from reallm.data.corpora.librispeech_synthetic import speakers_of, write_corpus
from reallm.data.corpora.spoken_text import RATE
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.errors import InputError
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.own_data import TEXT, write_text


def test_every_voice_is_in_one_part() -> None:
    parts = speakers_of(40, 4)
    voices = [s.voice for speakers in parts.values() for s in speakers]
    assert len(voices) == len(set(voices)) == 56 == len({s.name for speakers in parts.values() for s in speakers})
    with pytest.raises(InputError, match="voices were asked for"):
        speakers_of(75, 1)


def test_the_corpus_goes_through_the_recipe(tmp_path: Path) -> None:
    options = ("--hours", "0.01", "--eval-utterances", "3", "--train-voices", "2", "--test-voices", "1")
    command = ("synthetic-librispeech", "--out", tmp_path / "corpus", "--text", write_text(tmp_path / "text"), *options)
    assert "SYNTHETIC" in run_data(*command)
    root = tmp_path / "corpus/LibriSpeech"
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    run_data(*command)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    with pytest.raises(InputError, match=r"LibriSpeech was spoken with seed 1, not 2: name another --out, or remove"):
        run_data(*command, "--seed", "2")
    (tmp_path / "text/dev.txt").write_text("ANOTHER SENTENCE IS SAID\n")
    with pytest.raises(InputError, match=r"was spoken with dev.txt \w{64}, not \w{64}: name"):
        run_data(*command)
    assert "SYNTHETIC" in run_data("librispeech", "--corpus", tmp_path / "corpus", "--train-sets", "100", "--out", tmp_path / "out")
    assert corpus_of(tmp_path / "out/train.jsonl.gz")["kind"] == "SYNTHETIC speech"
    train = read_cuts(tmp_path / "out/train.jsonl.gz")
    assert 36 <= sum(cut.duration for cut in train) < 40
    assert len(transcripts(root / "train-clean-100")) == len(train) > 20, "more than a chapter"
    assert {text_of(cut) for cut in train} == {TEXT["train"], f"{TEXT['train']} AT ALL"}
    for split in EVALUATION:
        cuts = list(read_cuts(tmp_path / f"out/{split}.jsonl.gz"))
        assert len(cuts) == 3 and all(text_of(cut).startswith(TEXT[split.partition("-")[0]]) for cut in cuts)
        for cut in cuts:
            audio = load_audio(cut)
            quiet = np.sqrt(np.sort(audio**2)[: len(audio) // 10].mean())
            assert cut.sampling_rate == RATE and (quiet > 1e-3) == split.endswith("other")


def test_several_processes_write_the_same_corpus(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text")
    options = ("--hours", "0.02", "--eval-utterances", "2", "--train-voices", "3", "--test-voices", "1")
    found = []
    for jobs in ("1", "2"):
        run_data("synthetic-librispeech", "--out", tmp_path / jobs, "--text", text, *options, "--jobs", jobs)
        root = tmp_path / jobs / "LibriSpeech"
        found.append({str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()})
    assert found[0] == found[1] and len(found[0]) > 40
    with pytest.raises(InputError, match="--jobs 2 and --dask there: choose one"):
        run_data("synthetic-librispeech", "--out", tmp_path / "1", "--text", text, "--jobs", "2", "--dask", "there")


def test_text_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no text .*train.txt: give --text"):
        write_corpus(tmp_path, tmp_path / "none", 1)


def test_a_folder_of_something_else_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "LibriSpeech/dev-clean").mkdir(parents=True)
    with pytest.raises(InputError, match="LibriSpeech was spoken with what is not known: name another --out"):
        write_corpus(tmp_path, write_text(tmp_path / "text"), 1)
