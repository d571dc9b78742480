"""A file is fetched whole, from where a cut connection left off, or not at all."""

import hashlib
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from reallm.data import download
from reallm.data.download import DownloadError, fetch
from tests.dummies.server import send, serving, start_of

CONTENT = os.urandom(1000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PIECE_BYTES", 64)


class Archive:
    """Cuts each connection after ``most`` bytes; honours Range or not."""

    def __init__(self, most: int = 400, ranges: bool = True, content: bytes = CONTENT) -> None:
        self.most, self.ranges, self.content, self.starts = most, ranges, content, list[int]()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        start = start_of(handler) if self.ranges else 0
        self.starts.append(start_of(handler))
        if start >= len(self.content):
            send(handler, b"", 0, 416)
            return
        rest = self.content[start:]
        send(handler, rest[: self.most], len(rest), 206 if start else 200, first=start)


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def url(archive: Archive) -> Iterator[str]:
    with serving(archive) as address:
        yield f"{address}/a.tar.gz"


def test_a_cut_connection_goes_on_where_it_was(archive: Archive, url: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(url, tmp_path / "deep/a.tar.gz", SHA256, lambda *told: seen.append(told), pause=0)
    assert path.read_bytes() == CONTENT and archive.starts == [0, 400, 800]
    assert seen[-1] == (1000, 1000) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert os.listdir(tmp_path / "deep") == ["a.tar.gz"]


def test_another_process_goes_on(archive: Archive, url: str, tmp_path: Path) -> None:
    (tmp_path / ".a.tar.gz.part").write_bytes(CONTENT[:700])
    assert fetch(url, tmp_path / "a.tar.gz", SHA256, pause=0).read_bytes() == CONTENT
    assert archive.starts == [700]


def test_what_had_come_whole_is_only_checked(archive: Archive, url: str, tmp_path: Path) -> None:
    (tmp_path / ".a.tar.gz.part").write_bytes(CONTENT)
    assert fetch(url, tmp_path / "a.tar.gz", SHA256).read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_begins_again(archive: Archive, url: str, tmp_path: Path) -> None:
    archive.ranges, archive.most = False, 2000
    (tmp_path / ".a.tar.gz.part").write_bytes(b"x" * 700)
    assert fetch(url, tmp_path / "a.tar.gz", SHA256, pause=0).read_bytes() == CONTENT


def test_one_that_never_gets_further_is_given_up(archive: Archive, url: str, tmp_path: Path) -> None:
    archive.ranges = False
    with pytest.raises(DownloadError, match=r"cut after 400 of 1000 bytes; 400 bytes have come: the same command goes on"):
        fetch(url, tmp_path / "a.tar.gz", SHA256, attempts=2, pause=0)
    assert len(archive.starts) == 3 and not (tmp_path / "a.tar.gz").exists()


def test_a_wrong_checksum_is_refused_and_removed(archive: Archive, url: str, tmp_path: Path) -> None:
    archive.content = CONTENT[::-1]
    with pytest.raises(
        DownloadError, match=rf"has the sha256 {hashlib.sha256(archive.content).hexdigest()}, not {SHA256}, and was removed"
    ):
        fetch(url, tmp_path / "a.tar.gz", SHA256, pause=0)
    assert not os.listdir(tmp_path)
    archive.content = CONTENT
    assert fetch(url, tmp_path / "a.tar.gz", SHA256, pause=0).read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_not_asked_for_again(url: str, archive: Archive, tmp_path: Path) -> None:
    with serving(lambda handler: send(handler, b"", 0, 404)) as address, pytest.raises(DownloadError, match=r"/gone: HTTP Error 404"):
        fetch(f"{address}/gone", tmp_path / "gone", SHA256, pause=60)
    assert not os.listdir(tmp_path)


def test_a_server_that_is_busy_is_asked_again_later(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, pauses = [503, 429, 500], list[float]()
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    archive.most = 2000
    with serving(lambda handler: send(handler, b"", 0, codes.pop(0)) if codes else archive(handler)) as address:
        assert fetch(f"{address}/a", tmp_path / "a", SHA256, pause=20).read_bytes() == CONTENT
        assert pauses == [40, 60, 60]
        codes += [502] * 5
        with pytest.raises(DownloadError, match="HTTP Error 502"):
            fetch(f"{address}/b", tmp_path / "b", SHA256, pause=20)
    assert not codes and not (tmp_path / "b").exists()


def test_a_part_that_was_not_asked_for_is_not_put_in(tmp_path: Path) -> None:
    def another(handler: BaseHTTPRequestHandler) -> None:
        send(handler, CONTENT[100:], 900, 206, first=100)

    (tmp_path / ".a.part").write_bytes(CONTENT[:700])
    with serving(another) as address, pytest.raises(DownloadError, match="byte 700 was asked for, and the server sent those from 100 on"):
        fetch(f"{address}/a", tmp_path / "a", SHA256, attempts=1)
    assert (tmp_path / ".a.part").read_bytes() == CONTENT[:700]
