"""A folder of lhotse manifests: cuts, under the names that ``reallm data`` gives or any, or ``*recordings*`` and ``*supervisions*``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lhotse import CutSet, RecordingSet, SupervisionSet, load_manifest
from lhotse.cut import Cut

from reallm.data.cuts import CUT_TYPES, read_raw_lines
from reallm.data.record import read_record
from reallm.errors import InputError


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _load(path: Path) -> CutSet | RecordingSet | SupervisionSet:
    try:
        return load_manifest(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a lhotse manifest ({reason}): make it again") from error


def _holds_cuts(path: Path) -> bool:
    """Whether a file of any name is a manifest of cuts, by its first line. Raises InputError where it is cut short."""
    line = next(read_raw_lines(path), b"null")
    try:
        first = json.loads(line)
    except ValueError as error:
        if line.startswith(b"{"):
            raise InputError(f"{path} is not a lhotse manifest (its first line is cut short): make it again") from error
        return False
    return isinstance(first, dict) and first.get("type") in CUT_TYPES


def _manifests(folder: Path) -> Iterator[tuple[str, Path, CutSet]]:
    """(name, file, cuts) of each manifest."""
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    for path in files:
        if "cuts" in path.name:
            yield _name(path).replace("cuts", "").strip("_-.") or "cuts", path, _load(path)
        elif "recordings" in path.name:
            partner = path.with_name(path.name.replace("recordings", "supervisions"))
            if partner not in files:
                raise InputError(f"{path} has no {partner.name} beside it: transcripts are needed")
            name = _name(path).replace("recordings", "").strip("_-.").replace("__", "_") or "recordings"
            yield name, path, CutSet.from_manifests(recordings=_load(path), supervisions=_load(partner))
        elif _holds_cuts(path):
            yield _name(path), path, _load(path)


def read_lhotse(folder: Path) -> dict[str, list[Cut]]:
    """Cuts with one supervision each, by the manifest's name (less ``cuts`` or ``recordings``).

    Raises InputError for a missing folder, one without manifests, recordings without supervisions, two manifests of one name,
    and a manifest that was cut short.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing: give a folder of lhotse manifests")
    found: dict[str, list[Cut]] = {}
    for name, path, cuts in _manifests(folder):
        if name in found:
            raise InputError(f"{path} is the second manifest of '{name}' in {folder}: rename it, or move it elsewhere")
        found[name] = _single(cuts)
    if not found:
        raise InputError(f"{folder} holds no manifests of cuts, nor *recordings*.jsonl.gz and *supervisions*: give a folder that does")
    return found


def described(folder: Path) -> dict[str, Any]:
    """What ``corpus.json`` says of manifests that ``reallm data`` wrote: ``corpus``, ``real`` and ``licence``; nothing of others.

    Raises InputError for a broken one.
    """
    known = read_record(folder) or {}
    return {key: known[key] for key in ("corpus", "real", "licence") if key in known}


def _single(cuts: CutSet) -> list[Cut]:
    """Cuts of one supervision each."""
    singles: list[Cut] = []
    for cut in cuts:
        pieces = [cut] if len(cut.supervisions) == 1 else list(cut.trim_to_supervisions(keep_overlapping=False))
        singles.extend(p if len(pieces) == 1 else p.with_id(p.supervisions[0].id) for p in pieces)
    return singles
