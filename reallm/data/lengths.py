"""What audio files say of their own length, where libsndfile takes what there is for the whole and says nothing."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)  # codings of WAV files: PCM, float, A-law, µ-law; the last names one of them elsewhere
UNCOMPRESSED_AIFF = (b"NONE", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"alaw", b"ALAW", b"ulaw", b"ULAW")
UNKNOWN = 1 << 62  # samples: libsndfile says 2^63 - 1 of FLAC that was written into a pipe
PIPED = 0x7F000000  # bytes, from which on the size of an AIFF chunk stands for an unknown one, as sox writes it
PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page, at most
END_OF_STREAM = 4  # flag of an Ogg page (RFC 3533, section 6)


def declared_samples(path: Path, found: int) -> int:
    """The samples that the header of a WAV or AIFF file claims: libsndfile shortens that to what there is.

    Args:
        found: what libsndfile says, which is returned where a header claims nothing: that of another format, of a compressed coding, or of
            a stream, whose length was not known when it was written. Of a FLAC stream libsndfile does not know it: 0 is returned.
    """
    try:
        with path.open("rb") as file:
            kind, _, form = struct.unpack("<4sI4s", file.read(12))
            if (kind, form) == (b"RIFF", b"WAVE"):
                return _wav_samples(file, found)
            if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
                return _aiff_samples(file, found)
    except (struct.error, ZeroDivisionError):
        pass  # no header that can be read: libsndfile knows better, or refuses it
    return found if found < UNKNOWN else 0


def _chunks(file: IO[bytes], layout: str) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk; the file is at its content then. Raises struct.error at the end of the file."""
    while True:
        name, size = struct.unpack(layout, file.read(8))
        body = file.tell()
        yield name, size
        file.seek(body + size + size % 2)


def _wav_samples(file: IO[bytes], found: int) -> int:
    coding = block = 0
    for name, size in _chunks(file, "<4sI"):
        if name == b"fmt ":
            coding, block = struct.unpack("<H10xH", file.read(14))
        if name == b"data":
            streamed = size % (1 << 31) >= (1 << 31) - (1 << 12)
            return found if streamed or coding not in UNCOMPRESSED else int(size // block)
    return found


def _aiff_samples(file: IO[bytes], found: int) -> int:
    samples, coding = 0, b""
    for name, size in _chunks(file, ">4sI"):
        if name == b"COMM":
            (samples,), coding = struct.unpack(">2xI12x", file.read(18)), file.read(4) if size > 18 else b"NONE"
        if name == b"SSND":
            return found if size >= PIPED or coding not in UNCOMPRESSED_AIFF else samples
    return found


def lacks_ogg_end(path: Path) -> bool:
    """Whether this is an Ogg file (Vorbis, Opus, FLAC) whose last page is not whole, or not the end of its stream."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        file.seek(max(0, path.stat().st_size - PAGE))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27:
        return True
    segments = page[27 : 27 + page[26]]
    return not page[5] & END_OF_STREAM or len(page) < 27 + page[26] + sum(segments)
