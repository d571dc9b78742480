"""Cuts on disk and in memory: reading and writing manifests, and the samples of a cut.

A manifest is a ``.jsonl.gz`` file of lhotse cuts. :func:`load_audio` gives the samples that ``cut.load_audio()`` gives,
but keeps short recordings in memory: strings are composed of the same few recordings over and over.
"""

import dataclasses
import gzip
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio.mixer import audio_energy
from lhotse.augmentation import AudioTransform
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.serialization import deserialize_item

from reallm.data.files import atomic_write
from reallm.errors import InputError

CACHE_BYTES = 512 * 1024 * 1024
CACHED_SECONDS = 120.0  # longer recordings are read from disk each time
CUT_TYPES = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


class _AudioCache:
    """The least recently used arrays, up to a number of bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self.arrays: OrderedDict[Any, np.ndarray] = OrderedDict()

    def get(self, key: Any, load: Callable[[], np.ndarray]) -> np.ndarray:
        found = self.arrays.get(key)
        if found is not None:
            self.arrays.move_to_end(key)
            return found
        found = load()
        found.flags.writeable = False
        self.arrays[key] = found
        self.size += found.nbytes
        while self.size > self.capacity and len(self.arrays) > 1:
            self.size -= self.arrays.popitem(last=False)[1].nbytes
        return found


_cache = _AudioCache(CACHE_BYTES)


def _transforms(recording: Recording) -> tuple[list[dict[str, Any]], float]:
    """The recording's transforms but for volume, and the volume's factor."""
    kept, factor = [], 1.0
    for transform in recording.transforms or []:
        description = transform if isinstance(transform, dict) else transform.to_dict()
        if description["name"] == "Volume":
            factor *= description["kwargs"]["factor"]
        else:
            kept.append(description)
    return kept, factor


def _mono_audio(cut: MonoCut) -> np.ndarray | None:
    """(1, S), or None where the cut is not one file's channel that may be cached."""
    recording = cut.recording
    if recording is None or len(recording.sources) != 1 or recording.sources[0].type != "file" or recording.num_channels != 1:
        return None
    if recording.duration > CACHED_SECONDS:
        return None
    transforms, factor = _transforms(recording)
    source = str(recording.sources[0].source)
    if transforms:
        # lhotse resamples the piece, not the whole: the ends of the two differ
        key = (source, cut.start, cut.duration, json.dumps(transforms))
        plain = Recording(
            recording.id, recording.sources, recording.sampling_rate, recording.num_samples, recording.duration, [0], transforms
        )
        audio = _cache.get(key, lambda: plain.load_audio(offset=cut.start, duration=cut.duration))
    else:
        whole = _cache.get(source, lambda: Recording(**{**vars(recording), "transforms": None}).load_audio())
        start = round(cut.start * recording.sampling_rate)
        audio = whole[:, start : start + cut.num_samples]
        if audio.shape[1] != cut.num_samples:
            return None
    return audio if factor == 1.0 else audio * np.float32(factor)


def _mixed_audio(cut: MixedCut) -> np.ndarray | None:
    """(1, S), or None where the mix has a part that only lhotse can make."""
    if cut.transforms or any(t.mute for t in cut.tracks) or any(t.is_snr_reference for t in cut.tracks[1:]):
        return None
    if cut.tracks[0].snr is not None or not isinstance(cut.tracks[0].cut, MonoCut):
        return None
    sample_rate = cut.sampling_rate
    mixed = np.zeros((1, cut.num_samples), dtype=np.float32)
    reference = 0.0
    for number, track in enumerate(cut.tracks):
        if isinstance(track.cut, PaddingCut):
            continue
        audio = _mono_audio(track.cut) if isinstance(track.cut, MonoCut) else None
        if audio is None:
            return None
        if number == 0:
            reference = audio_energy(audio)
        gain = 1.0
        if track.snr is not None and reference > 0:
            energy = audio_energy(audio)
            if energy > 0:
                gain = (reference * 10.0 ** (-track.snr / 10) / energy) ** 0.5
        start = round(track.offset * sample_rate)
        if start + audio.shape[1] > mixed.shape[1]:
            return None
        mixed[:, start : start + audio.shape[1]] += audio if gain == 1.0 else gain * audio
    return mixed


def load_audio(cut: Cut, sample_rate: int | None = None) -> np.ndarray:
    """The samples of a cut: (S,) float32, its channels averaged, resampled to ``sample_rate`` when that is another.

    S is round(cut.duration · sample_rate), or cut.num_samples at the cut's own rate.

    Raises InputError when the audio cannot be read, or holds NaN or infinite values.
    """
    audio = None
    try:
        if isinstance(cut, MonoCut):
            audio = _mono_audio(cut)
        elif isinstance(cut, MixedCut):
            audio = _mixed_audio(cut)
        if audio is None:
            audio = cut.load_audio()
    except Exception as error:
        for file in audio_files(cut):
            if not file.is_file():
                raise InputError(f"cut '{cut.id}': no audio file {file}: put it back, or make the manifest again") from error
        raise InputError(f"cut '{cut.id}': its audio cannot be read ({_first_line(error)}): make the manifest again") from error
    assert audio is not None
    mono = audio[0] if audio.shape[0] == 1 else audio.mean(axis=0)
    if not np.isfinite(mono).all():
        raise InputError(f"cut '{cut.id}': its audio holds NaN or infinite samples: repair or remove the recording")
    if sample_rate is not None and sample_rate != cut.sampling_rate:
        import soxr

        mono = soxr.resample(mono, cut.sampling_rate, sample_rate)
        wanted = round(cut.duration * sample_rate)
        mono = np.pad(mono, (0, max(0, wanted - len(mono))))[:wanted]
    return np.ascontiguousarray(mono, dtype=np.float32)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def audio_files(cut: Cut) -> list[Path]:
    """The files that a cut's audio comes from."""
    parts = [t.cut for t in cut.tracks if not isinstance(t.cut, PaddingCut)] if isinstance(cut, MixedCut) else [cut]
    return [Path(s.source) for part in parts if part.has_recording for s in part.recording.sources if s.type == "file"]


def text_of(cut: Cut) -> str:
    """The transcript: the texts of the cut's supervisions in order of time, joined by a space."""
    return " ".join(s.text for s in sorted(cut.supervisions, key=lambda s: s.start) if s.text)


def speaker_of(cut: Cut) -> str:
    """The speaker of the cut's first supervision; "" where it is unknown."""
    return next((s.speaker for s in cut.supervisions if s.speaker), "")


def read_raw_lines(path: Path | str) -> Iterator[bytes]:
    """The lines of a manifest. Raises InputError for a file that is missing or cut short."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no manifest {path}: run the data stage first, or name another file")
    opener: Any = gzip.open if path.suffix == ".gz" else open
    read = 0
    try:
        with opener(path, "rb") as file:
            for line in file:
                yield line
                read += 1
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"manifest {path} is broken after {read} cuts ({_first_line(error)}): make it again") from error


def read_lines(path: Path | str) -> Iterator[dict[str, Any]]:
    """The cuts of a manifest as plain dictionaries, in the order of the file.

    Raises InputError for a file that is missing, cut short or not a manifest.
    """
    for read, line in enumerate(read_raw_lines(path)):
        try:
            cut = json.loads(line)
        except ValueError as error:
            raise InputError(f"manifest {path} is broken after {read} cuts ({_first_line(error)}): make it again") from error
        if not isinstance(cut, dict) or cut.get("type") not in CUT_TYPES:
            raise InputError(f"manifest {path} line {read + 1} is not a lhotse cut: give a manifest that `reallm data` wrote")
        yield cut


def supervisions_of(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The supervisions of a cut, given as the dictionary that :func:`read_lines` gives."""
    yield from line.get("supervisions", ())
    for track in line.get("tracks", ()):
        yield from supervisions_of(track["cut"])


def read_cuts(path: Path | str) -> CutSet:
    """All cuts of a manifest, in memory and in the order of the file. Raises InputError as :func:`read_lines`, and for an empty one."""
    cuts = CutSet.from_cuts(deserialize_item(line) for line in read_lines(path))
    if len(cuts) == 0:
        raise InputError(f"manifest {path} holds no cuts: make it again")
    return cuts


def to_plain(value: Any) -> Any:
    """What ``cut.to_dict()`` gives, for JSON, several times faster: it copies every field of every dataclass deeply."""
    if isinstance(value, AudioTransform):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value):
        plain = {k: to_plain(v) for k, v in vars(value).items() if v is not None}
        return {**plain, "type": type(value).__name__} if isinstance(value, Cut) else plain
    return value


def write_cuts(cuts: Iterable[Cut], path: Path | str) -> int:
    """Write a manifest (``.jsonl.gz``) at once or not at all. Returns the number of cuts.

    Equal cuts give an equal file: the time of writing is not stored in it.
    """
    count = 0
    with atomic_write(path, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=4, mtime=0) as file:
        for cut in cuts:
            file.write((json.dumps(to_plain(cut), ensure_ascii=False) + "\n").encode())
            count += 1
    return count
