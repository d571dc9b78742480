"""Synthetic speech for pre-training: many voices, and those of dev and test are heard nowhere else."""

import multiprocessing
import os
import signal
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from reallm.data.corpora import speaking
from reallm.data.corpora.spoken_text import RATE, Speaker, say, sayings
from reallm.data.corpora.synthetic import MANNERS, SyntheticOptions, family, prepare, speakers_of
from reallm.data.cuts import load_audio, read_cuts, speaker_of, text_of
from reallm.data.synthesis import Synthesizer
from reallm.errors import InputError
from reallm.jobs import Workers
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.own_data import TEXT, write_text
from tests.dummies.work import kill_a_worker

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
    spoken: list[int] = []
    record = prepare(text, out, SyntheticOptions(**TINY), tick=spoken.append)
    assert (record["real"], corpus_of(out / "test.jsonl.gz")["kind"]) == (False, "SYNTHETIC speech")
    train, dev, test = (list(read_cuts(out / f"{split}.jsonl.gz")) for split in ("train", "dev", "test"))
    assert 18 <= sum(cut.duration for cut in train) < 40 and (len(dev), len(test)) == (2, 3)
    assert sum(spoken) >= len([*train, *dev, *test]) == len(list(out.rglob("*.flac"))), "what is too much is not left there"
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


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "speech").rglob("*") if path.is_file()}


def test_the_same_is_said_by_whoever_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(speaking, "SHARD", 4)
    text, options = write_text(tmp_path / "text"), SyntheticOptions(**TINY | {"voices": 0, "test_utterances": 9})
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        kill_a_worker(cluster.scheduler_address, speaking.__name__, "say", 6, tmp_path / "died")  # in the middle of a shard
        for name, workers in (("one", Workers()), ("two", Workers(2)), ("cluster", Workers(dask=cluster.scheduler_address))):
            prepare(text, tmp_path / name, options, workers)
    said = files_of(tmp_path / "one")
    assert (tmp_path / "died").exists(), "a worker of the cluster was killed"
    assert len([name for name in said if name.endswith(".flac")]) > 15
    assert files_of(tmp_path / "two") == said == files_of(tmp_path / "cluster")
    for split in ("train", "dev", "test"):
        ids = {name: [cut.id for cut in read_cuts(tmp_path / name / f"{split}.jsonl.gz")] for name in ("one", "two", "cluster")}
        assert ids["two"] == ids["one"] == ids["cluster"] and len(set(ids["cluster"])) == len(ids["cluster"]) > 1
    for name in ("one", "two", "cluster"):
        assert sorted(path.name for path in (tmp_path / name).iterdir() if path.name.startswith((".", "speech"))) == ["speech"]


@pytest.mark.parametrize("variant", ["f3", "Reed", "klatt4"])
def test_a_shard_does_not_depend_on_what_was_said_before_it(variant: str) -> None:
    said = sayings([TEXT["dev"], TEXT["test"]], [Speaker("a", f"en-us+{variant}")], MANNERS["wide"], np.random.default_rng(1))
    shard = list(islice(said, 4))
    found = []
    for _ in range(2):
        Synthesizer().restart()
        found.append([say(saying) for saying in shard])
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_a_process_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaking, "SHARD", 2)
    text, options = write_text(tmp_path / "text"), SyntheticOptions(**TINY | {"hours": 0.02})
    prepare(text, tmp_path / "whole", options)
    spoken: list[int] = []

    def kill(count: int) -> None:
        spoken.append(count)
        if sum(spoken) >= 4:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"^one of 2 processes was killed[^\n]*; what is done is kept$"):
        prepare(text, out, options, Workers(2), kill)
    assert not (out / "speech").exists() and not multiprocessing.active_children()
    again: list[int] = []
    prepare(text, out, options, tick=again.append)
    assert again[0] >= 4, "it goes on"
    assert files_of(out) == files_of(tmp_path / "whole") and not (out / ".speech.parts").exists()


@pytest.mark.parametrize("lost", [0, 3])
def test_a_stop_at_the_very_end_loses_nothing_and_what_is_gone_is_spoken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(speaking, "SHARD", 2)
    text, options, out = write_text(tmp_path / "text"), SyntheticOptions(**TINY), tmp_path / "out"
    prepare(text, tmp_path / "whole", options)
    replace = os.replace

    def stop(source: Path | str, target: Path | str) -> None:
        if Path(target) == (out / "speech").resolve():
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(text, out, options)
    assert not (out / "speech").exists()
    for file in sorted(out.rglob("train-*.flac"))[:lost]:
        file.unlink()
    again: list[int] = []
    prepare(text, out, options, tick=again.append)
    assert again[0] > 0, "it goes on"
    assert files_of(out) == files_of(tmp_path / "whole") and not (out / ".speech.parts").exists()


def test_what_is_spoken_is_on_disk_before_it_counts_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    prepare(write_text(tmp_path / "text"), tmp_path / "out", SyntheticOptions(**TINY))
    files = [path for path in (tmp_path / "out/speech").rglob("*") if path.is_file()]
    assert len(files) > 10 and {path.stat().st_ino for path in [*files, tmp_path / "out"]} <= synced


def test_of_another_corpus_and_of_one_that_was_not_begun_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, out = write_text(tmp_path / "text"), tmp_path / "out"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(text, out, SyntheticOptions(**TINY), tick=stop)
    assert not list(out.iterdir())
    (out / ".speech.parts/speech/train/000").mkdir(parents=True)
    (out / ".speech.parts/speech/train/000/train-009999.flac").touch()
    (out / ".speech.parts/made_of.json").write_text("{}")
    prepare(text, out, SyntheticOptions(**TINY))
    assert not list(out.rglob("train-009999.flac"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--hours", 0.001, "--voices", 1, "--dev-utterances", 1, "--test-utterances", 1)
    monkeypatch.delenv("REALLM_DATA", raising=False)
    with pytest.raises(InputError, match="no text to speak: name a folder"):
        run_data("synthetic", "--out", tmp_path / "out", *options)
    write_text(tmp_path / "text")
    monkeypatch.setenv("REALLM_DATA", str(tmp_path))
    assert "SYNTHETIC" in run_data("synthetic", "--out", tmp_path / "out", *options, "--jobs", 2)
    with pytest.raises(InputError, match="--jobs 2 and --dask there: choose one"):
        run_data("synthetic", "--out", tmp_path / "out", *options, "--jobs", 2, "--dask", "there")
    assert len(read_cuts(tmp_path / "out/test.jsonl.gz")) == 1
