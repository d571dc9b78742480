"""The download of the Free Spoken Digit Dataset: whole or not at all, whatever the server does."""

import gzip
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from reallm.data import download
from reallm.data.corpora import fsdd
from reallm.data.corpora.digits import DigitsOptions, prepare
from tests.dummies.data import write_recordings
from tests.dummies.server import Answer, send, serving


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What GitHub makes of the repository."""
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        tar.add(write_recordings(folder / "theirs"), arcname=f"free-spoken-digit-dataset-{fsdd.COMMIT}")
    return (folder / "a.tar.gz").read_bytes()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """Makes the dataset's address that of a server on this machine, which answers as it is told."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PIECE_BYTES", 10_000)
    with ExitStack() as servers:

        def start(answer: Answer) -> None:
            monkeypatch.setattr(fsdd, "ARCHIVE", f"{servers.enter_context(serving(answer))}/{fsdd.COMMIT}.tar.gz")

        yield start


@pytest.mark.parametrize("told", [True, False])
def test_a_download_is_used_and_kept(archive: bytes, serve: Callable[[Answer], None], tmp_path: Path, told: bool) -> None:
    requests: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        requests.append(handler.path)
        send(handler, archive, len(archive) if told else None)

    serve(answer)
    options = DigitsOptions(3, 10, 2, 8, 4, synthetic_voices=0)
    seen: list[tuple[int, int | None]] = []
    record = prepare(None, tmp_path / "out", options, announce=lambda line: None, fetched=lambda done, total: seen.append((done, total)))
    assert record["real"] is True and record["recordings"] == 200
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and len(seen) > 1
    assert seen[-1] == (len(archive), len(archive) if told else None)
    assert prepare(None, tmp_path / "out", options, announce=lambda line: None) == record
    assert requests == [f"/{fsdd.COMMIT}.tar.gz"]


def cut(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    send(handler, archive[: len(archive) // 2], len(archive))


def cut_without_a_length(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    send(handler, archive[: len(archive) // 2], None)


def cut_in_a_chunk(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(f"{len(archive):x}\r\n".encode() + archive[: len(archive) // 2])
    handler.close_connection = True


def stall(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    send(handler, archive[: len(archive) // 2], len(archive))
    handler.connection.settimeout(5)
    handler.rfile.read(1)  # until the other side goes away


def log_in(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    page = b"<html>log in first</html>"
    send(handler, page, len(page))


def something_else(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    send(handler, gzip.compress(b""), None)


def gone(handler: BaseHTTPRequestHandler, archive: bytes) -> None:
    send(handler, b"", 0, status=404)


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (cut, r"cut after \d+ of \d+ bytes|IncompleteRead"),
        (cut_without_a_length, "not a whole archive"),
        (cut_in_a_chunk, "IncompleteRead"),
        (stall, "timed out"),
        (log_in, "not a whole archive"),
        (something_else, "not a whole archive"),
        (gone, "404"),
    ],
)
def test_half_a_download_leaves_nothing(
    archive: bytes,
    serve: Callable[[Answer], None],
    tmp_path: Path,
    behaviour: Callable[[BaseHTTPRequestHandler, bytes], None],
    why: str,
) -> None:
    serve(lambda handler: behaviour(handler, archive))
    with pytest.raises(download.DownloadError, match=why):
        fsdd.download(tmp_path / "out", timeout=0.5)
    assert not [path for path in tmp_path.rglob("*") if path.name != "out"]


def test_what_is_downloaded_cannot_change() -> None:
    assert len(fsdd.COMMIT) == 40 and fsdd.COMMIT in fsdd.ARCHIVE
