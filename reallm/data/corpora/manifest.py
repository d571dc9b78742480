"""One manifest from users' own recordings: checked, counted, written at once."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut, MultiCut
from lhotse.utils import fastcopy

from reallm.data.cuts import write_cuts
from reallm.data.examine import BrokenAudio, check_whole, refuse_many_broken
from reallm.data.files import atomic_write
from reallm.data.record import read_record
from reallm.errors import InputError
from reallm.jobs import ALONE, Workers, in_shards

SHARD = 500  # files that a worker of a cluster checks at a time


@dataclass(frozen=True)
class Utterance:
    """A transcript and where its audio is; ``start`` and ``end`` in seconds of the file, None = all of it."""

    id: str
    path: Path
    text: str
    speaker: str | None = None
    start: float | None = None
    end: float | None = None


def _cut(utterance: Utterance, recording: Recording) -> Cut:
    whole = recording.to_cut()
    start, end = utterance.start or 0.0, recording.duration if utterance.end is None else utterance.end
    if not 0 <= start < end <= recording.duration + 0.01:
        raise BrokenAudio(f"segment {start}–{end} s is not inside the recording's {recording.duration:.2f} s")
    cut = whole if utterance.start is None and utterance.end is None else whole.truncate(offset=start, duration=end - start)
    channel: Any = cut.channel if isinstance(cut, MultiCut) else 0
    supervision = SupervisionSegment(
        utterance.id, recording.id, 0.0, cut.duration, channel=channel, text=utterance.text, speaker=utterance.speaker
    )
    return fastcopy(cut, id=utterance.id, supervisions=[supervision])


def check_files(paths: Iterable[Path], workers: Workers, tick: Callable[[int], None], out: Path) -> dict[Path, str]:
    """Decode every file. Returns those that are broken, and why.

    Args:
        workers: of this machine: threads, for decoding leaves the interpreter to others.
        out: a folder that those of a cluster see.
    """
    files = list(dict.fromkeys(paths))
    reasons: list[str | None] = []
    if workers.dask is None:
        with ThreadPoolExecutor(max_workers=workers.jobs) as pool:
            for reason in pool.map(_broken, files):
                tick(1)
                reasons.append(reason)
    else:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".parts.", dir=out) as parts:
            for shard in in_shards(_broken_of_shard, files, SHARD, Path(parts), {}, workers, tick):
                reasons += shard
    return {path: reason for path, reason in zip(files, reasons, strict=True) if reason is not None}


def _broken(path: Path) -> str | None:
    try:
        check_whole(path)
    except BrokenAudio as error:
        return str(error)
    return None


def _broken_of_shard(paths: Sequence[Path], tick: Callable[[int], None]) -> list[str | None]:
    return [_broken(path) for path in paths]


def cuts_of(utterances: Sequence[Utterance], broken: dict[Path, str]) -> tuple[list[Cut], dict[str, str]]:
    """The cuts of the utterances that can be used, and the others' ids with the reason."""
    cuts: list[Cut] = []
    skipped: dict[str, str] = {}
    recordings: dict[Path, Recording] = {}
    for utterance in utterances:
        try:
            if utterance.path in broken:
                raise BrokenAudio(broken[utterance.path])
            if not utterance.text.strip():
                raise BrokenAudio("no transcript")
            if utterance.path not in recordings:
                recordings[utterance.path] = Recording.from_file(utterance.path, recording_id=lambda path: path.stem)
            cuts.append(_cut(utterance, recordings[utterance.path]))
        except BrokenAudio as error:
            skipped[utterance.id] = str(error)
    return cuts, skipped


def change_case(cuts: Iterable[Cut], case: str | None) -> list[Cut]:
    """The cuts with transcripts in "lower" or "upper" case, or as they are (None)."""
    change = {None: str, "lower": str.lower, "upper": str.upper}[case]
    return [cut.map_supervisions(lambda s: s.transform_text(change)) for cut in cuts]


def refuse_duplicates(ids: Iterable[str], source: Path) -> None:
    """Raises InputError where two utterances have one id."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"{source}: {len(twice)} ids are used twice, '{twice[0]}' for one: make them unique")


def write_manifest(
    cuts: Sequence[Cut],
    skipped: dict[str, str],
    source: Path,
    out: Path,
    name: str,
    corpus: str | None = None,
    real: bool = True,
    licence: str | None = None,
) -> dict[str, Any]:
    """Write ``out``/``name``.jsonl.gz and its entry in ``out``/corpus.json. Returns what corpus.json holds.

    Raises InputError where more than 1 % of the utterances had to be skipped, or none is left, or where ``out`` holds
    another corpus.
    """
    refuse_many_broken(skipped, len(cuts) + len(skipped), source)
    if not cuts:
        raise InputError(f"{source} holds no utterances: give a folder or file that does")
    refuse_duplicates((cut.id for cut in cuts), source)
    source, marker = source.resolve(), out / "corpus.json"
    record: dict[str, Any] = {"corpus": corpus or (source.parent if source.is_file() else source).name, "real": real, "splits": {}}
    if licence:
        record["licence"] = licence
    if old := read_record(out):
        if corpus is None:
            record["corpus"] = old["corpus"]
        if (old["corpus"], old["real"]) != (record["corpus"], real):
            raise InputError(f"{out} already holds the corpus '{old['corpus']}' (real: {old['real']}): choose another --out")
        record = old
    write_cuts(cuts, out / f"{name}.jsonl.gz")
    record["splits"][name] = {
        "strings": len(cuts),
        "hours": round(sum(cut.duration for cut in cuts) / 3600, 3),
        "speakers": len({s.speaker for cut in cuts for s in cut.supervisions if s.speaker}),
        "source": str(source),
        "skipped": skipped,
    }
    with atomic_write(marker) as file:
        json.dump(record, file, indent=1)
    return record


def keep_splits(out: Path, names: Container[str]) -> dict[str, Any]:
    """Remove from ``out`` the manifests, and their entries in corpus.json, of other splits. Returns what corpus.json holds then."""
    record = read_record(out)
    assert record is not None, "manifests were written here"
    for name in [name for name in record["splits"] if name not in names]:
        (out / f"{name}.jsonl.gz").unlink(missing_ok=True)
        del record["splits"][name]
    with atomic_write(out / "corpus.json") as file:
        json.dump(record, file, indent=1)
    return record


def make_manifest(
    utterances: Sequence[Utterance],
    source: Path,
    out: Path,
    name: str,
    case: str | None = None,
    corpus: str | None = None,
    real: bool = True,
    workers: Workers = ALONE,
    tick: Callable[[int], None] = lambda files: None,
) -> dict[str, Any]:
    """Check the audio, and write the manifest as :func:`write_manifest` does."""
    refuse_duplicates((u.id for u in utterances), source)
    cuts, skipped = cuts_of(utterances, check_files((u.path for u in utterances), workers, tick, out))
    return write_manifest(change_case(cuts, case), skipped, source, out, name, corpus, real)
