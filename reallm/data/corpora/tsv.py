"""A table of utterances: tab-separated, a header line, columns ``path`` and ``text``.

Further columns that are read, where they are there: ``id`` (or ``utt_id``), ``speaker``, ``start`` and ``end`` in seconds.
"""

from pathlib import Path

from reallm.data.corpora.manifest import Utterance
from reallm.data.corpora.text_lines import text_lines
from reallm.errors import InputError, nearest


def read_tsv(path: Path) -> list[Utterance]:
    """The utterances of a table. Relative paths in it start from its folder; an id that is not given is the file's name.

    Raises InputError for a missing file, text that is not UTF-8, a missing column, and lines that do not fit the header.
    """
    if not path.is_file():
        raise InputError(f"table {path} is missing: give a tab-separated file with the columns path and text")
    lines = text_lines(path)
    header = lines[0].split("\t") if lines else []
    for column in ("path", "text"):
        if column not in header:
            raise InputError(f"{path} has no column '{column}'{nearest(column, header)}: its first line must name tab-separated columns")
    utterances = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        values = line.split("\t")
        if len(values) != len(header):
            raise InputError(f"{path} line {number} has {len(values)} columns, its header {len(header)}: separate them with tabs")
        row = dict(zip(header, values, strict=True))
        audio = (path.parent / row["path"]).resolve()
        try:
            start, end = (float(row[c]) if row.get(c) else None for c in ("start", "end"))
        except ValueError:
            given = f"'{row.get('start', '')}' and '{row.get('end', '')}'"
            raise InputError(f"{path} line {number}: start and end must be seconds, not {given}") from None
        name = row.get("id") or row.get("utt_id") or audio.stem
        utterances.append(Utterance(name, audio, row["text"], row.get("speaker") or None, start, end))
    return utterances
