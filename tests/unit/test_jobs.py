"""Shards: the same result whoever does them, each once, none lost when somebody is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reallm import jobs
from reallm.errors import InputError
from reallm.jobs import Workers, in_shards
from tests.dummies.work import Squares, kill_a_worker

ROOT = Path(__file__).parents[2]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster


def squares(work: Squares, folder: Path, count: int = 10, **options: Any) -> list[int]:
    return [square for shard in in_shards(work, range(count), 3, folder, {"of": "squares"}, **options) for square in shard]


def shards_done(notes: Path) -> list[str]:
    return sorted(note.name.split("-")[1] for note in notes.glob("done-*"))


def test_one_process(notes: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    assert squares(Squares(notes), tmp_path / "parts", tick=seen.append) == [n * n for n in range(10)]
    assert sum(seen) == 10 and len(seen) > 4, "told of each item"
    assert shards_done(notes) == ["000", "003", "006", "009"]
    assert {note.read_text() for note in notes.iterdir()} == {str(os.getpid())}


def test_several_processes_keep_the_order(notes: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    assert squares(Squares(notes), tmp_path / "one") == squares(
        Squares(notes, waits=0.2), tmp_path / "two", tick=seen.append, workers=Workers(2)
    )
    assert sum(seen) == 10
    for file in (tmp_path / "one").glob("*.gz"):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    workers = {note.read_text() for note in notes.glob("done-*")} - {str(os.getpid())}
    assert len(workers) == 2
    assert not multiprocessing.active_children()


def test_what_is_done_is_not_done_again(notes: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    with pytest.raises(InputError, match="number 7 is bad"):
        squares(Squares(notes, refuses=7), parts)
    assert shards_done(notes) == ["000", "003"]
    seen: list[int] = []
    assert len(squares(Squares(notes), parts, tick=seen.append)) == 10
    assert shards_done(notes) == ["000", "003", "006", "009"]
    assert seen[0] == 6 and sum(seen) == 10
    list(in_shards(Squares(notes), range(10), 3, parts, {"of": "other squares"}))
    assert len(shards_done(notes)) == 8, "another key: anew"
    squares(Squares(notes), parts, count=9)
    assert len(shards_done(notes)) == 11, "other items: anew"


def test_a_shard_whose_work_is_gone_is_done_again(notes: Path, tmp_path: Path) -> None:
    squares(Squares(notes), tmp_path / "parts")
    assert squares(Squares(notes), tmp_path / "parts", there=lambda number: number != 4) == [n * n for n in range(10)]
    assert shards_done(notes) == ["000", "003", "003", "006", "009"]


def test_where_nothing_is_done_nothing_stays(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="number 1 is bad"):
        squares(Squares(notes, refuses=1), tmp_path / "parts")
    assert not (tmp_path / "parts").exists()


def test_a_process_that_is_killed_is_said_and_the_rest_is_kept(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of 2 processes was killed.*fewer --jobs"):
        squares(Squares(notes, dies=9), tmp_path / "parts", workers=Workers(2))
    done = shards_done(notes)
    assert len(squares(Squares(notes, dies=9), tmp_path / "parts")) == 10
    assert done and shards_done(notes) == ["000", "003", "006", "009"]


def test_bad_input_in_a_process_is_its_own_message(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^number 4 is bad: leave it out$"):
        squares(Squares(notes, refuses=4), tmp_path / "parts", workers=Workers(2))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_what_is_done_and_no_process(sent: signal.Signals, notes: Path, tmp_path: Path) -> None:
    code = f"""
import signal
from pathlib import Path
from reallm.jobs import Workers, in_shards
from tests.dummies.work import Squares
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    list(in_shards(Squares(Path({str(notes)!r}), waits=1.0), range(90), 3, Path({str(tmp_path / "parts")!r}), {{}}, Workers(2)))
"""
    (tmp_path / "main.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((tmp_path / "parts").glob("*.gz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    error = process.communicate(timeout=20)[1]
    assert error.count("Traceback") == (1 if sent == signal.SIGINT else 0), error
    workers = {int(note.read_text()) for note in notes.iterdir()}
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{worker}/stat").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if Path(f"/proc/{worker}/stat").exists()]
    assert 0 < len(list((tmp_path / "parts").glob("*.gz"))) < 30


def test_a_cluster_loses_a_worker(cluster: Any, notes: Path, tmp_path: Path) -> None:
    expected = squares(Squares(notes), tmp_path / "one", count=60)
    seen: list[int] = []
    work = Squares(notes, dies=31, waits=0.02)
    found = squares(work, tmp_path / "cluster", count=60, tick=seen.append, workers=Workers(dask=cluster.scheduler_address))
    assert list(notes.glob("died-*")), "it was killed"
    assert found == expected and sum(seen) == 60
    for file in (tmp_path / "one").glob("*.gz"):
        assert file.read_bytes() == (tmp_path / "cluster" / file.name).read_bytes()


def test_bad_input_on_a_cluster_is_its_own_message(cluster: Any, notes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^number 4 is bad: leave it out$"):
        squares(Squares(notes, refuses=4), tmp_path / "parts", workers=Workers(dask=cluster.scheduler_address))


def test_a_cluster_prepares_data_though_a_worker_is_killed(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from lhotse import MonoCut, Recording

    from reallm.data import features
    from reallm.data.corpora import manifest
    from reallm.data.corpora.tsv import read_tsv
    from reallm.data.cuts import read_cuts
    from reallm.registry import find
    from tests.dummies.own_data import table, write_audio

    workers = Workers(dask=cluster.scheduler_address)
    monkeypatch.setattr(manifest, "SHARD", 2)
    monkeypatch.setattr(features, "SHARD", 2)
    write_audio(tmp_path, ["a", "b", "c", "d"], seconds=0.2)
    files = [tmp_path / f"{name}.wav" for name in "abcd"]
    cuts = [MonoCut(path.stem, 0, 0.2, 0, recording=Recording.from_file(path)) for path in files]
    frontend = find("frontend", "log_mel").tiny().eval()
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    kill_a_worker(workers.dask or "", features.__name__, "load_audio", 2, tmp_path / "died-of-features")
    stored = {folder: list(features.with_features(cuts, frontend, folder, who)) for folder, who in ((alone, Workers()), (shared, workers))}
    assert (tmp_path / "died-of-features").exists() and [cut.id for cut in stored[shared]] == list("abcd")
    assert sorted(path.name for path in shared.rglob("*") if path.is_file()) == [f"{name}.npy" for name in "abcd"], "nothing half done"
    for one, other in zip(stored[alone], stored[shared], strict=True):
        assert np.array_equal(one.stored_features.load(), other.stored_features.load())
    files[2].write_bytes(files[2].read_bytes()[:1000])
    seen: list[int] = []
    broken = manifest.check_files(files, workers, seen.append, tmp_path / "out")
    assert list(broken) == [files[2]] and "truncated" in broken[files[2]]
    assert sum(seen) == 4 and not list((tmp_path / "out").iterdir())
    files[2].write_bytes(files[3].read_bytes())
    said = read_tsv(table(tmp_path / "said.tsv", [("path", "text"), *((path, "HERE") for path in files)]))
    kill_a_worker(workers.dask or "", manifest.__name__, "check_whole", 2, tmp_path / "died-of-a-manifest")
    for name, who in (("alone", Workers()), ("shared", workers)):
        manifest.make_manifest(said, tmp_path / "said.tsv", tmp_path / "manifests", name, workers=who)
    one, other = (list(read_cuts(tmp_path / f"manifests/{name}.jsonl.gz")) for name in ("alone", "shared"))
    assert (tmp_path / "died-of-a-manifest").exists() and one == other and len({cut.id for cut in other}) == len(other) == 4


def test_a_shard_that_kills_every_worker(cluster: Any, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(InputError, match="one shard killed 1 workers"):
        squares(Squares(notes, dies=7), tmp_path / "parts", workers=Workers(dask=cluster.scheduler_address))
    assert len(squares(Squares(notes, dies=7), tmp_path / "parts")) == 10


def test_no_cluster(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(jobs, "PATIENCE", 0.5)
    for address, message in (
        ("tcp://127.0.0.1:1", "no scheduler answers there"),
        ("nowhere", "missing port number"),
        ("no.host.invalid:1", "not known"),
    ):
        with pytest.raises(InputError, match=message):
            squares(Squares(notes), tmp_path / "parts", workers=Workers(dask=address))
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty, pytest.raises(InputError, match="no workers for"):
        squares(Squares(notes), tmp_path / "parts", workers=Workers(dask=empty.scheduler_address))
    with pytest.raises(InputError, match="--jobs 2 and --dask there: choose one"):
        Workers(2, "there")
    assert not (tmp_path / "parts").exists()
