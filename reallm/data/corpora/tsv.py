"""A table of utterances: tab-separated, a header line, columns ``path`` and ``text``.

Further columns that are read, where they are there: ``id`` (or ``utt_id``), ``speaker``, ``start`` and ``end`` in seconds.
"""

from collections import Counter
from pathlib import Path, PurePath

from reallm.data.corpora.manifest import Utterance
from reallm.data.corpora.text_lines import text_lines
from reallm.errors import InputError, nearest


def read_tsv(path: Path) -> list[Utterance]:
    """The utterances of a table. Relative paths in it start from its folder.

    An id that is not given is the path as the table has it, without suffix, ``-`` for ``/``: ``a/1.wav`` is ``a-1``. The segments of a
    file, the lines with a ``start`` or ``end``, are counted in their order: ``a-1-0001``, ``a-1-0002``.

    Raises InputError for a missing file, text that is not UTF-8, a missing column, and lines that do not fit the header.
    """
    if not path.is_file():
        raise InputError(f"table {path} is missing: give a tab-separated file with the columns path and text")
    lines = text_lines(path)
    header = lines[0].split("\t") if lines else []
    for column in ("path", "text"):
        if column not in header:
            if len(header) == 1 and "," in header[0]:
                raise InputError(f"{path}: its first line '{header[0]}' has commas: separate the columns with tabs, not commas")
            raise InputError(f"{path} has no column '{column}'{nearest(column, header)}: its first line must name tab-separated columns")
    utterances = []
    segments: Counter[str] = Counter()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        values = line.split("\t")
        if len(values) != len(header):
            raise InputError(f"{path} line {number} has {len(values)} columns, its header {len(header)}: separate them with tabs")
        row = dict(zip(header, values, strict=True))
        try:
            start, end = (float(row[c]) if row.get(c) else None for c in ("start", "end"))
        except ValueError:
            given = f"'{row.get('start', '')}' and '{row.get('end', '')}'"
            raise InputError(f"{path} line {number}: start and end must be seconds, not {given}") from None
        name = row.get("id") or row.get("utt_id")
        if not name:
            name = _name(row["path"])
            if start is not None or end is not None:
                segments[name] += 1
                name = f"{name}-{segments[name]:04d}"
        utterances.append(Utterance(name, (path.parent / row["path"]).resolve(), row["text"], row.get("speaker") or None, start, end))
    return utterances


def _name(path: str) -> str:
    named = PurePath(path)
    return "-".join(part for part in (*named.parent.parts, named.stem) if part not in ("/", ".."))
