"""``corpus.json``: what is known of the corpus whose manifests lie beside it."""

import json
from pathlib import Path
from typing import Any

from reallm.errors import InputError

NAME = "corpus.json"


def read_record(folder: Path) -> dict[str, Any] | None:
    """What ``folder``/corpus.json says; None where there is none. Raises InputError for a broken one."""
    file = folder / NAME
    if not file.is_file():
        return None
    fix = "remove it, or make the manifests beside it again"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is broken ({error}): {fix}") from error
    if not isinstance(record, dict):
        raise InputError(f"{file} is broken (not a JSON object): {fix}")
    return record
