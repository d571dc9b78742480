"""Synthetic speech for pre-training: many voices, and those of dev and test are heard nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from reallm.data.corpora.spoken_text import RATE
from reallm.data.corpora.synthetic import SyntheticOptions, family, prepare, speakers_of
from reallm.data.cuts import load_audio, read_cuts, speaker_of, text_of
from reallm.errors import InputError
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.own_data import TEXT, write_text

TINY = {"hours": 0.005, "voices": 3, "dev_utterances": 2, "test_utterances": 3}


def test_no_family_of_voices_is_in_two_splits() -> None:
    parts = speakers_of()
    families = {part: {family(speaker.voice.partition("+")[2]) for speaker in speakers} for part, speakers in parts.items()}
    assert not families["train"] & families["test"] and not families["train"] & families["dev"] and not families["dev"] & families["test"]
    assert len(parts["train"]) > 300 and len(parts["test"]) > 50 and len(parts["dev"]) > 20
    assert not any("robo" in speaker.voice.lower() for speakers in parts.values() for speaker in speakers)
    few = speakers_of(20)
    assert few["train"] == parts["train"][:20] and few["test"] == parts["test"]
    assert len({speaker.voice.partition("+")[0] for speaker in few["train"]}) > 3, "dialects are mixed"
    held_out = len(parts["dev"]) + len(parts["test"])
    had = f"at most {len(parts['train'])} can be had, since {held_out} are held out"
    with pytest.raises(InputError, match=f"100000 synthetic voices were asked for: {had}"):
        speakers_of(100000)


def test_what_is_written(tmp_path: Path) -> None:
    text, out = write_text(tmp_path / "text"), tmp_path / "out"
    seconds: list[float] = []
    record = prepare(text, out, SyntheticOptions(**TINY), seconds.append)
    assert (record["real"], corpus_of(out / "test.jsonl.gz")["kind"]) == (False, "SYNTHETIC speech")
    train, dev, test = (list(read_cuts(out / f"{split}.jsonl.gz")) for split in ("train", "dev", "test"))
    assert 18 <= sum(cut.duration for cut in train) < 40 and (len(dev), len(test)) == (2, 3)
    assert sum(seconds) == pytest.approx(sum(cut.duration for cut in [*train, *dev, *test]), abs=0.01)
    assert all(text_of(cut).startswith(TEXT["test"]) for cut in test)
    assert {speaker_of(cut) for cut in train} <= {speaker.name for speaker in speakers_of(3)["train"]}
    audio = load_audio(test[0])
    assert test[0].sampling_rate == RATE and 0.15 < np.abs(audio).max() < 0.95
    assert np.abs(audio[: RATE // 25]).max() < 0.01, "silence comes first"
    lengths = {cut.duration for cut in train if text_of(cut) == TEXT["train"]}
    assert len(lengths) > 1 and max(lengths) > 1.2 * min(lengths), "speeds differ"


def test_speech_that_is_there_is_kept_and_other_speech_refused(tmp_path: Path) -> None:
    text, out = write_text(tmp_path / "text"), tmp_path / "out"
    prepare(text, out, SyntheticOptions(**TINY))
    before = {p: p.stat().st_mtime_ns for p in (out / "speech").rglob("*.flac")}
    prepare(text, out, SyntheticOptions(**TINY))
    assert before and {p: p.stat().st_mtime_ns for p in (out / "speech").rglob("*.flac")} == before
    with pytest.raises(InputError, match="speech was spoken with seed 1, not 2: name another --out, or remove"):
        prepare(text, out, SyntheticOptions(**TINY, seed=2))
    with pytest.raises(InputError, match=r"no text .*train.txt: give --text"):
        prepare(tmp_path / "none", tmp_path / "out2", SyntheticOptions(**TINY))


def test_the_same_is_said_by_several_processes(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text")
    said, lengths = [], []
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        seconds: list[float] = []
        prepare(text, out, SyntheticOptions(**TINY), seconds.append, jobs)
        cuts = [cut for split in ("train", "dev", "test") for cut in read_cuts(out / f"{split}.jsonl.gz")]
        said.append([(cut.id, text_of(cut), speaker_of(cut), round(float(np.abs(load_audio(cut)).max()), 3)) for cut in cuts])
        lengths.append([cut.duration for cut in cuts])
        assert len(list((out / "speech").rglob("*.flac"))) == len(seconds) == len(cuts), "what is too much is not left there"
    assert said[0] == said[1]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.05), "espeak-ng remembers what it said before"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--hours", 0.001, "--voices", 1, "--dev-utterances", 1, "--test-utterances", 1)
    monkeypatch.delenv("REALLM_DATA", raising=False)
    with pytest.raises(InputError, match="no text to speak: name a folder"):
        run_data("synthetic", "--out", tmp_path / "out", *options)
    write_text(tmp_path / "text")
    monkeypatch.setenv("REALLM_DATA", str(tmp_path))
    assert "SYNTHETIC" in run_data("synthetic", "--out", tmp_path / "out", *options)
    assert len(read_cuts(tmp_path / "out/test.jsonl.gz")) == 1
