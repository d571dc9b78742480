"""Files from other people's servers: whole, with the right checksum, going on where a cut connection left off."""

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from reallm import fingerprints

PIECE_BYTES = 1 << 16  # between two looks at the progress
RANGE_NOT_SATISFIABLE = 416
PASSING = (408, 425, 429)  # client errors after which the same request may succeed: too slow, too early, too often
LONGEST_PAUSE = 60.0  # seconds

Progress = Callable[[int, int | None], None]  # told the bytes that have come, and of how many where the server says so


class DownloadError(Exception):
    """Why a file cannot be had; ``fetch`` goes on from what has come when it is called again."""


def pieces(url: str, timeout: float) -> Iterator[tuple[bytes, int | None]]:
    """What a server answers, piece by piece, with its length where that was told. Raises DownloadError unless all of it comes."""
    for piece, _, total in _answer(url, timeout, 0):
        yield piece, total


def _answer(url: str, timeout: float, start: int) -> Iterator[tuple[bytes, int, int | None]]:
    """(piece, its place in the file, bytes of the whole file or None) from byte ``start`` on, or from 0 where the server cannot."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    total = None
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            place = 0
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                place = _first_byte(response.headers["Content-Range"])
                if place != start:
                    raise DownloadError(f"byte {start} was asked for, and the server sent those from {place} on")
            if response.headers["Content-Length"]:
                total = place + int(response.headers["Content-Length"])
            while piece := response.read(PIECE_BYTES):
                yield piece, place, total
                place += len(piece)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == RANGE_NOT_SATISFIABLE and start:
            return  # there is nothing after what has come: the checksum will tell
        raise DownloadError(str(error) or type(error).__name__) from error
    if total is not None and place != total:
        raise DownloadError(f"the connection was cut after {place} of {total} bytes")


def _first_byte(content_range: str | None) -> int:
    """Where a part of a file begins, as ``bytes 400-999/1000``. Raises DownloadError for a header that does not say so."""
    found = re.match(r"bytes (\d+)-", content_range or "")
    if not found:
        raise DownloadError(f"the server sent a part of the file, and does not say which (Content-Range: {content_range})")
    return int(found[1])


def _for_good(error: BaseException | None) -> bool:
    """Whether the same request is going to be refused again."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in PASSING


def fetch(
    url: str,
    path: Path,
    sha256: str,
    progress: Progress = lambda done, total: None,
    timeout: float = 20.0,
    attempts: int = 5,
    pause: float = 2.0,
) -> Path:
    """Fetch ``url`` into ``path``, which is there whole, with the checksum ``sha256``, or not at all.

    What has come lies in ``.NAME.part`` beside it; after a cut connection, a kill or an error this goes on from there.

    Args:
        progress: is told the bytes that have come, and of how many where the server says so.
        timeout: seconds without an answer.
        attempts: connections in a row that bring nothing at all before it is given up.
        pause: seconds before the next connection; twice as many, up to a minute, after each that brought nothing.

    Raises DownloadError where the file cannot be had, or is another than the one that was wanted: then what came is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.touch()
    failed = 0
    while True:
        before = part.stat().st_size
        try:
            _append(url, part, progress, timeout)
            break
        except DownloadError as error:
            failed = failed + 1 if part.stat().st_size <= before else 0
            if failed == attempts or _for_good(error.__cause__):
                have = f"; {part.stat().st_size} bytes have come: the same command goes on from there" if part.stat().st_size else ""
                if not have:
                    part.unlink()
                raise DownloadError(f"{url}: {error}{have}") from error
            time.sleep(min(LONGEST_PAUSE, pause * 2**failed))
    found = fingerprints.of_file(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(f"{url}: what came has the sha256 {found}, not {sha256}, and was removed: start again, or get it elsewhere")
    os.replace(part, path)
    return path


def _append(url: str, part: Path, progress: Progress, timeout: float) -> None:
    """Bring ``part`` to its full length."""
    with part.open("r+b") as file:
        start = file.seek(0, os.SEEK_END)
        try:
            for piece, place, total in _answer(url, timeout, start):
                if file.tell() != place:  # the server began from the beginning
                    file.seek(place)
                    file.truncate()
                file.write(piece)
                progress(file.tell(), total)
        finally:
            file.flush()
            os.fsync(file.fileno())
