"""The Free Spoken Digit Dataset: where its recordings are found, and what is in them.

github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0: ``recordings/{digit}_{speaker}_{index}.wav``, 8 kHz mono.
"""

import gzip
import re
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import AudioSource, Recording

from reallm.data.download import DownloadError, Progress, pieces
from reallm.data.examine import BrokenAudio, read_whole, refuse_many_broken
from reallm.data.files import atomic_folder
from reallm.errors import InputError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMIT = "d6938f9bf1545aa66d8489fc9f1385a7abd64282"  # the tag v1.0.10: 3,000 recordings, 50 of each digit by each of six speakers
ARCHIVE = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.tar.gz"
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
TRIM_DB = 35.0


@dataclass(frozen=True)
class DigitRecording:
    """One recording of one digit and the piece of it that is speech."""

    recording: Recording
    digit: int
    speaker: str
    index: int
    begin_samples: int
    end_samples: int  # exclusive
    rms: float  # of the piece
    peak: float

    @property
    def word(self) -> str:
        """The digit as text."""
        return DIGITS[self.digit]


@dataclass(frozen=True)
class Scan:
    """What a folder of recordings holds."""

    recordings: list[DigitRecording]
    skipped: dict[str, str]  # file name → why
    sample_rate: int


def recordings_folder(folder: Path) -> Path | None:
    """The folder of recordings in ``folder``, ``folder``/recordings or ``folder``/fsdd/recordings; None if none has any."""
    for candidate in (folder / "recordings", folder / "fsdd" / "recordings", folder):
        if candidate.is_dir() and any(NAME.fullmatch(p.name) for p in candidate.iterdir()):
            return candidate
    return None


def speech_span(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Begin and end (exclusive) of the part of (S,) samples that is above the loudest 10 ms less ``TRIM_DB``.

    Both are multiples of 10 ms, but for an end that is the recording's own.
    """
    frame = sample_rate // 100
    centred = samples - samples.mean()
    frames = np.pad(centred, (0, -len(centred) % frame)).reshape(-1, frame)
    energy = (frames**2).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-TRIM_DB / 10))
    return int(loud[0]) * frame, min((int(loud[-1]) + 1) * frame, len(samples))


def _examine(path: Path) -> DigitRecording:
    match = NAME.fullmatch(path.name)
    assert match is not None
    samples, sample_rate = read_whole(path)
    if samples.shape[1] != 1:
        raise BrokenAudio(f"{samples.shape[1]} channels")
    mono = samples[:, 0]
    if len(mono) < sample_rate // 20 or not np.any(mono != mono[0]):
        raise BrokenAudio("shorter than 50 ms, or silent")
    begin, end = speech_span(mono, sample_rate)
    piece = mono[begin:end]
    # Recording.from_file would open the file once more
    source = AudioSource("file", [0], str(path))
    recording = Recording(path.stem, [source], sample_rate, len(mono), len(mono) / sample_rate, [0])
    return DigitRecording(
        recording,
        int(match["digit"]),
        match["speaker"],
        int(match["index"]),
        begin,
        end,
        float(np.sqrt((piece**2).mean())),
        float(np.abs(piece).max()),
    )


def scan(folder: Path) -> Scan:
    """Read every recording of a folder.

    Broken files are skipped and listed. Raises InputError for an empty folder, for more than 1 % of broken files, or
    for recordings of different sample rates.
    """
    paths = sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name))
    if not paths:
        raise InputError(f"no recordings named DIGIT_SPEAKER_INDEX.wav in {folder}: point --data at the Free Spoken Digit Dataset")
    found: list[DigitRecording] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            found.append(_examine(path))
        except BrokenAudio as error:
            skipped[path.name] = str(error)
    refuse_many_broken(skipped, len(paths), folder)
    rates = sorted({d.recording.sampling_rate for d in found})
    if len(rates) != 1:
        raise InputError(f"recordings in {folder} have the sample rates {rates}: resample them to one")
    return Scan(found, skipped, rates[0])


def download(target: Path, fetched: Progress = lambda done, total: None, timeout: float = 20.0) -> Path:
    """Fetch the dataset from its repository on GitHub into ``target``/recordings, which is there whole or not at all.

    Args:
        target: its parent is made.
        fetched: is told the bytes that have come, and of how many where the server says so.
        timeout: seconds without an answer.

    Raises DownloadError where it cannot be had whole.
    """
    recordings = target / "recordings"
    with tempfile.TemporaryFile() as archive:  # without a name: a kill leaves nothing of it
        for piece, total in pieces(ARCHIVE, timeout):
            archive.write(piece)
            fetched(archive.tell(), total)
        archive.seek(0)
        try:
            with atomic_folder(recordings) as folder, tarfile.open(fileobj=archive) as tar:
                for member in tar:
                    name = Path(member.name).name
                    if member.isfile() and "/recordings/" in member.name and NAME.fullmatch(name):
                        content = tar.extractfile(member)
                        assert content is not None
                        (folder / name).write_bytes(content.read())
                if not any(folder.iterdir()):
                    raise tarfile.ReadError("no recordings in it")
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:  # not OSError: a full disk is another matter
            raise DownloadError(f"what came is not a whole archive of recordings ({error})") from error
    return recordings
