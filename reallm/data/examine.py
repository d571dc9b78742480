"""Whether an audio file is whole: the check that every corpus goes through before its manifest is written."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile

from reallm.errors import InputError

BROKEN_SHARE = 0.01
BLOCK_SAMPLES = 1 << 18  # decoded at a time
UNCOMPRESSED = (1, 3, 6, 7, 0xFFFE)  # codings of WAV files: PCM, float, A-law, µ-law; the last names one of them elsewhere


class BrokenAudio(Exception):
    """A file that is truncated, empty, or not audio; the message says which."""


def declared_samples(path: Path, found: int) -> int:
    """The samples that the header of a WAV file claims: libsndfile shortens that to what there is, and says nothing.

    Args:
        found: what libsndfile says, which is returned where a header claims nothing: that of another format, of a compressed coding, or of
            a stream, whose length was not known when it was written.
    """
    try:
        with path.open("rb") as file:
            riff, _, form = struct.unpack("<4sI4s", file.read(12))
            coding = block = 0
            while (riff, form) == (b"RIFF", b"WAVE"):
                name, size = struct.unpack("<4sI", file.read(8))
                if name == b"data":
                    streamed = size % (1 << 31) >= (1 << 31) - (1 << 12)
                    return found if streamed or coding not in UNCOMPRESSED else size // block
                body = file.tell()
                if name == b"fmt ":
                    coding, block = struct.unpack("<H10xH", file.read(14))
                file.seek(body + size + size % 2)
    except (struct.error, ZeroDivisionError):
        pass  # no header that can be read: libsndfile knows better, or refuses it
    return found


def _blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """The samples (S, channels) float32 of a file, piece by piece, and the sample rate. Raises BrokenAudio, at the end too."""
    if not path.is_file():
        raise BrokenAudio("no such file")
    read = declared = 0
    try:
        with soundfile.SoundFile(path) as file:
            declared, sample_rate = declared_samples(path, file.frames), file.samplerate
            while len(samples := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                if not np.isfinite(samples).all():
                    raise BrokenAudio("holds NaN or infinite samples")
                read += len(samples)
                yield samples, sample_rate
    except soundfile.LibsndfileError as error:
        opened = "damaged: it cannot be decoded to its end"
        raise BrokenAudio(opened if declared else f"not audio that soundfile reads ({error.error_string})") from error
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise BrokenAudio((str(error).splitlines() or ["unreadable"])[0]) from error
    if read < declared:
        raise BrokenAudio(f"truncated: {read} of {declared} samples")
    if read == 0:
        raise BrokenAudio("empty")


def check_whole(path: Path) -> None:
    """Decode a file of any length, in constant memory. Raises BrokenAudio."""
    for _ in _blocks(path):
        pass


def read_whole(path: Path) -> tuple[np.ndarray, int]:
    """All samples (S, channels) float32 and the sample rate. Raises BrokenAudio."""
    pieces = list(_blocks(path))
    return np.concatenate([samples for samples, _ in pieces]), pieces[0][1]


def refuse_many_broken(skipped: Mapping[str, str], total: int, corpus: Path) -> None:
    """Raises InputError where more than 1 % of a corpus's files had to be skipped."""
    if len(skipped) > BROKEN_SHARE * total:
        listed = ", ".join(f"{name} ({why})" for name, why in list(skipped.items())[:3]) + (", …" if len(skipped) > 3 else "")
        raise InputError(
            f"{len(skipped)} of {total} audio files of {corpus} are broken: {listed}: at most 1 % may be; fetch, repair or remove them"
        )
