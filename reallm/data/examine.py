"""Whether an audio file is whole: the check that every corpus goes through before its manifest is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile

from reallm.data.lengths import UNKNOWN, declared_samples, lacks_ogg_end
from reallm.data.sequential_audio import SequentialAudio
from reallm.errors import InputError

BROKEN_SHARE = 0.01
BLOCK_SAMPLES = 1 << 18  # decoded at a time


class BrokenAudio(Exception):
    """A file that is truncated, empty, or not audio; the message says which."""


def _blocks(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """The samples (S, channels) float32 of a file, piece by piece, and the sample rate. Raises BrokenAudio, at the end too."""
    if not path.is_file():
        raise BrokenAudio("no such file")
    read = declared = 0
    try:
        with SequentialAudio(path) as file:
            if file.frames >= UNKNOWN:  # lhotse cannot read it: its cuts would be as long
                raise BrokenAudio("its header does not say how long it is, as of a file written into a pipe: convert it to a new one")
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
    if lacks_ogg_end(path):
        raise BrokenAudio("truncated: the end of its Ogg stream is missing")
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
