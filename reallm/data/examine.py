"""Whether an audio file is whole: the check that every corpus goes through before its manifest is written."""

import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from reallm.errors import InputError

BROKEN_SHARE = 0.01


class BrokenAudio(Exception):
    """A file that is truncated, empty, or not audio; the message says which."""


def read_whole(path: Path) -> tuple[np.ndarray, int]:
    """All samples (S, channels) float32 and the sample rate. Raises BrokenAudio."""
    if not path.is_file():
        raise BrokenAudio("no such file")
    try:
        with soundfile.SoundFile(path) as file:
            declared, sample_rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BrokenAudio(f"not audio that soundfile reads ({error.error_string})") from error
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise BrokenAudio((str(error).splitlines() or ["unreadable"])[0]) from error
    if path.suffix.lower() == ".wav":
        # libsndfile shortens the length that the header of a cut-off WAV file declares, and says nothing
        try:
            with wave.open(str(path)) as header:
                declared = header.getnframes()
        except (wave.Error, EOFError):
            pass  # a WAV flavour that only libsndfile reads
    if len(samples) < declared:
        raise BrokenAudio(f"truncated: {len(samples)} of {declared} samples")
    if len(samples) == 0:
        raise BrokenAudio("empty")
    if not np.isfinite(samples).all():
        raise BrokenAudio("holds NaN or infinite samples")
    return samples, sample_rate


def refuse_many_broken(skipped: Mapping[str, str], total: int, corpus: Path) -> None:
    """Raises InputError where more than 1 % of a corpus's files had to be skipped."""
    if len(skipped) > BROKEN_SHARE * total:
        listed = ", ".join(f"{name} ({why})" for name, why in list(skipped.items())[:3]) + (", …" if len(skipped) > 3 else "")
        raise InputError(
            f"{len(skipped)} of {total} audio files of {corpus} are broken: {listed}: at most 1 % may be; fetch, repair or remove them"
        )
