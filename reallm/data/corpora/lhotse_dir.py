"""A folder of lhotse manifests: ``*cuts*.jsonl[.gz]``, or ``*recordings*`` and ``*supervisions*`` of like names."""

from pathlib import Path

from lhotse import CutSet, RecordingSet, SupervisionSet, load_manifest
from lhotse.cut import Cut

from reallm.errors import InputError


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _load(path: Path) -> CutSet | RecordingSet | SupervisionSet:
    try:
        return load_manifest(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a lhotse manifest ({reason}): make it again") from error


def read_lhotse(folder: Path) -> dict[str, list[Cut]]:
    """Cuts with one supervision each, by the manifest's name (less ``cuts`` or ``recordings``).

    Raises InputError for a missing folder, one without manifests, and recordings without supervisions.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} is missing: give a folder of lhotse manifests")
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    found: dict[str, CutSet] = {}
    for path in files:
        if "cuts" in path.name:
            found[_name(path).replace("cuts", "").strip("_-.") or "cuts"] = _load(path)
        elif "recordings" in path.name:
            partner = path.with_name(path.name.replace("recordings", "supervisions"))
            if partner not in files:
                raise InputError(f"{path} has no {partner.name} beside it: transcripts are needed")
            name = _name(path).replace("recordings", "").strip("_-.").replace("__", "_") or "recordings"
            found[name] = CutSet.from_manifests(recordings=_load(path), supervisions=_load(partner))
    if not found:
        raise InputError(f"{folder} holds no manifests named *cuts*.jsonl.gz, or *recordings* and *supervisions*: give a folder that does")
    return {name: _single(cuts) for name, cuts in found.items()}


def _single(cuts: CutSet) -> list[Cut]:
    """Cuts of one supervision each."""
    singles: list[Cut] = []
    for cut in cuts:
        pieces = [cut] if len(cut.supervisions) == 1 else list(cut.trim_to_supervisions(keep_overlapping=False))
        singles.extend(p if len(pieces) == 1 else p.with_id(p.supervisions[0].id) for p in pieces)
    return singles
