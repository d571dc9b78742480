"""LibriSpeech: manifests by lhotse's recipe, from disk or a server; what is missing is named."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from lhotse.recipes.librispeech import prepare_librispeech

from reallm.data import download as downloads
from reallm.data.corpora import librispeech
from reallm.data.corpora.librispeech import EVALUATION, PARTS, TRAIN_SETS, download, find_root, prepare
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.errors import InputError
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.server import send, serving, start_of

RATE = 16000


def write_part(root: Path, part: str, speaker: int, utterances: int = 2) -> None:
    """Two chapters of a speaker."""
    for chapter in (7, 8):
        folder = root / part / str(speaker) / str(chapter)
        folder.mkdir(parents=True)
        lines = []
        for number in range(utterances):
            name = f"{speaker}-{chapter}-{number:04d}"
            noise = np.random.default_rng(speaker + number).uniform(-0.1, 0.1, RATE // 2)
            soundfile.write(folder / f"{name}.flac", noise, RATE)
            lines.append(f"{name} IT IS NUMBER {'ONE' if number else 'NOUGHT'}")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines))  # LibriSpeech has a line end; not everybody's editor


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number, part in enumerate([*EVALUATION, "train-clean-100"]):
        write_part(tmp_path / "corpus/LibriSpeech", part, 10 + number)
    return tmp_path / "corpus"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """LibriSpeech is as large as what ``write_part`` writes."""
    monkeypatch.setattr(librispeech, "PARTS", {part: (4, sha256) for part, (_, sha256) in PARTS.items()})


@pytest.mark.usefixtures("small")
def test_manifests(corpus: Path, tmp_path: Path) -> None:
    output = run_data("librispeech", "--corpus", corpus, "--train-sets", "100", "--out", tmp_path / "out")
    assert "test-other" in output and "real speech" in output
    found = {split: list(read_cuts(tmp_path / f"out/{split}.jsonl.gz")) for split in (*EVALUATION, "train")}
    first = found["train"][0]
    assert (first.id, text_of(first), first.supervisions[0].speaker) == ("14-7-0000", "IT IS NUMBER NOUGHT", "14")
    assert load_audio(first).shape == (RATE // 2,)
    assert corpus_of(tmp_path / "out/train.jsonl.gz") == {
        "name": "LibriSpeech",
        "kind": "real recordings",
        "licence": "CC BY 4.0 (openslr.org/12)",
    }
    theirs = prepare_librispeech(corpus.resolve() / "LibriSpeech", dataset_parts=[*EVALUATION, "train-clean-100"])
    for split, part in [*((part, part) for part in EVALUATION), ("train", "train-clean-100")]:
        cuts = {c.supervisions[0].id: c for c in CutSet.from_manifests(**theirs[part])}
        assert sorted(cuts) == [c.id for c in found[split]]
        for ours in found[split]:
            assert (ours.recording, ours.supervisions) == (cuts[ours.id].recording, cuts[ours.id].supervisions)


def test_a_folder_that_is_written_again_holds_nothing_of_before(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus / "LibriSpeech", tmp_path / "out", "100", subset=True)
    shutil.rmtree(corpus / "LibriSpeech/dev-other")
    shutil.rmtree(corpus / "LibriSpeech/train-clean-100")
    record = prepare(corpus / "LibriSpeech", tmp_path / "out", "100", subset=True)
    splits = {"dev-clean", "test-clean", "test-other"}
    assert record["splits"].keys() == splits and json.loads((tmp_path / "out/corpus.json").read_text()) == record
    assert {p.name.partition(".")[0] for p in (tmp_path / "out").glob("*.jsonl.gz")} == splits


def test_parts_and_utterances_that_are_missing_are_named(corpus: Path, tmp_path: Path) -> None:
    shutil.rmtree(corpus / "LibriSpeech/dev-other")
    (corpus / "LibriSpeech/test-clean/12/8/12-8-0001.flac").unlink()
    (corpus / "LibriSpeech/test-other/13/7/13-7.trans.txt").unlink()
    with pytest.raises(InputError) as error:
        prepare(find_root(corpus), tmp_path / "out", "460")
    for named in (
        "dev-other is missing",
        "train-clean-360 is missing",
        "test-clean lacks the recordings of 1 of 4 utterances, such as ",
        "test-clean/12/8/12-8-0001.flac",
        "test-other has 2 of 2939 utterances",
        "dev-clean has 4 of 2703 utterances",
        "openslr.org/12",
    ):
        assert named in str(error.value)
    assert "train-clean-100 is missing" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_subset_is_taken_as_it_is_but_whole(corpus: Path, tmp_path: Path) -> None:
    shutil.rmtree(corpus / "LibriSpeech/train-clean-100")
    record = prepare(find_root(corpus), tmp_path / "out", "100", subset=True)
    assert sorted(record["splits"]) == sorted(EVALUATION)
    (corpus / "LibriSpeech/dev-clean/10/7/10-7-0000.flac").unlink()
    with pytest.raises(InputError, match=r"dev-clean lacks the recordings of 1 of 4"):
        prepare(find_root(corpus), tmp_path / "out", "100", subset=True)


def test_broken_recordings_are_refused(corpus: Path, tmp_path: Path) -> None:
    file = corpus / "LibriSpeech/dev-clean/10/7/10-7-0000.flac"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"1 of 4 audio files .* are broken: 10-7-0000"):
        prepare(find_root(corpus), tmp_path / "out", "100", subset=True)


@pytest.mark.parametrize("line", ["10-7-0001", "11-7-0001 ANOTHER CHAPTER", "10-9-0001 ANOTHER CHAPTER"])
def test_a_transcript_that_was_cut_short(corpus: Path, tmp_path: Path, line: str) -> None:
    file = corpus / "LibriSpeech/dev-clean/10/7/10-7.trans.txt"
    file.write_text(file.read_text() + f"\n{line}")
    with pytest.raises(InputError, match=f"10-7.trans.txt line 3: '{line}' is not '10-7-NNNN TEXT'"):
        prepare(find_root(corpus), tmp_path / "out", "100", subset=True)


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no part of LibriSpeech"):
        find_root(tmp_path)
    with pytest.raises(InputError, match="--train-sets 500: one of 100, 460, 960"):
        librispeech.parts_of("500")


def archive_of(root: Path, part: str) -> bytes:
    """What OpenSLR serves: the part, and files about all of them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        readme = tarfile.TarInfo("LibriSpeech/README.TXT")
        readme.size = 5
        tar.addfile(readme, io.BytesIO(b"hello"))
        tar.add(root / part, arcname=f"LibriSpeech/{part}")
    return stream.getvalue()


def test_a_download_that_is_cut_and_then_wrong(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [*EVALUATION, *TRAIN_SETS["100"]]
    archives = {f"/{part}.tar.gz": archive_of(corpus / "LibriSpeech", part) for part in parts}
    sums = {part: (4, hashlib.sha256(archives[f"/{part}.tar.gz"]).hexdigest()) for part in parts}
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("REALLM_DATA", raising=False)
    monkeypatch.setattr(librispeech, "PARTS", sums)
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    requests: list[tuple[str, int]] = []
    wrong = "/test-clean.tar.gz"

    def answer(handler: object) -> None:
        """Cuts every connection in the middle of what is left, if that is much; one archive is another."""
        content, start = archives[handler.path], start_of(handler)
        requests.append((handler.path, start))
        rest = (content if handler.path != wrong else b"x" + content[1:])[start:]
        send(handler, rest if len(rest) < 5000 else rest[: len(rest) // 2], len(rest), 206 if start else 200, first=start)

    with serving(answer) as url:
        monkeypatch.setattr(librispeech, "URL", url)
        options = ("librispeech", "--train-sets", "100", "--out", tmp_path / "out", "--download-to", tmp_path / "down")
        with pytest.raises(InputError, match=r"test-clean of LibriSpeech cannot be had: .*has the sha256 .*, not .*, and was removed"):
            run_data(*options)
        assert sorted(p.name for p in (tmp_path / "down").iterdir()) == ["LibriSpeech"]
        assert sorted(p.name for p in (tmp_path / "down/LibriSpeech").iterdir()) == ["dev-clean", "dev-other"]
        assert len([start for path, start in requests if path == "/dev-clean.tar.gz"]) > 1, "it was cut, and went on"
        wrong = ""
        requests.clear()
        assert "real speech" in run_data(*options)
        assert not any("dev-" in path for path, _ in requests), "what is there is not fetched again"
        requests.clear()
        run_data(*options)
        assert not requests
    assert json.loads((tmp_path / "out/corpus.json").read_text())["splits"]["train"]["strings"] == 4


def test_an_archive_that_somebody_put_there(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, content = tmp_path / "test-clean.tar.gz", archive_of(corpus / "LibriSpeech", "test-clean")
    archive.write_bytes(content)
    said: list[str] = []
    with pytest.raises(
        InputError, match=r"test-clean.tar.gz has the sha256 .*, not 39fde.*: remove it to download, or bring the right one"
    ):
        download(tmp_path, ["test-clean"], announce=said.append)
    assert archive.read_bytes() == content and not (tmp_path / "LibriSpeech").exists()
    monkeypatch.setattr(librispeech, "PARTS", {"test-clean": (4, hashlib.sha256(content).hexdigest())})
    download(tmp_path, ["test-clean"], announce=said.append)
    assert archive.read_bytes() == content, "it stays"
    assert (tmp_path / "LibriSpeech/test-clean/12/7/12-7.trans.txt").is_file() and said == 2 * [f"unpacking {archive}"]


@pytest.mark.usefixtures("small")
def test_only_downloading_looks_through_a_corpus_on_disk(corpus: Path, tmp_path: Path) -> None:
    options = ("librispeech", "--corpus", corpus, "--train-sets", "100", "--out", tmp_path / "out", "--download-only")
    assert "LibriSpeech is there" in run_data(*options)
    shutil.rmtree(corpus / "LibriSpeech/dev-other")
    message = r"dev-other is missing: .*, or leave --corpus out and unset REALLM_DATA to download"
    with pytest.raises(InputError, match=message):
        run_data(*options)
    assert "is there" in run_data(*options, "--subset")
    (corpus / "LibriSpeech/SYNTHETIC").touch()
    assert "is there" in run_data(*options)


def test_an_archive_of_something_else(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive_of(corpus / "LibriSpeech", "dev-clean")
    (tmp_path / "test-clean.tar.gz").write_bytes(content)
    monkeypatch.setattr(librispeech, "PARTS", {"test-clean": (4, hashlib.sha256(content).hexdigest())})
    with pytest.raises(InputError, match=r"test-clean.tar.gz is no archive of that part \(no folder LibriSpeech/test-clean/ in it\)"):
        download(tmp_path, ["test-clean"], announce=lambda line: None)
    assert not (tmp_path / "LibriSpeech/test-clean").exists()


@pytest.mark.parametrize("name", ["../../../elsewhere.txt", "84/../../../../elsewhere.txt"])
@pytest.mark.parametrize("filters", [{"filter": "data"}, {}], ids=["", "before Python 3.11.4"])
def test_an_archive_that_would_write_elsewhere(name: str, filters: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "corpus/test-clean.tar.gz", tmp_path / "corpus"
    folder.mkdir()
    with tarfile.open(path, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"LibriSpeech/test-clean/{name}")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    monkeypatch.setattr(librispeech, "PARTS", {"test-clean": (4, hashlib.sha256(path.read_bytes()).hexdigest())})
    monkeypatch.setattr(librispeech, "DATA_FILTER", filters)
    with pytest.raises(InputError, match=r"elsewhere.txt in it lies outside of LibriSpeech/test-clean/"):
        download(folder, ["test-clean"], announce=lambda line: None)
    assert not (folder / "LibriSpeech/test-clean").exists() and not list(tmp_path.rglob("elsewhere.txt"))


def test_real_utterances(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "librispeech").is_dir():
        pytest.skip(f"no LibriSpeech in {real_data}")
    with pytest.raises(InputError, match="test-clean has 4 of 2620 utterances"):
        prepare(find_root(real_data / "librispeech"), tmp_path / "out")
    run_data("librispeech", "--corpus", real_data / "librispeech", "--subset", "--out", tmp_path / "out")
    cuts = {cut.id: cut for cut in read_cuts(tmp_path / "out/test-clean.jsonl.gz")}
    assert list(cuts) == ["1089-134686-0000", "1089-134686-0001", "1089-134691-0000", "1089-134691-0001"]
    assert text_of(cuts["1089-134691-0000"]) == "HE COULD WAIT NO LONGER"
    assert all(cut.sampling_rate == RATE and np.abs(load_audio(cut)).max() > 0.1 for cut in cuts.values())
