"""The lines of the text files that users make."""

from pathlib import Path

from reallm.errors import InputError


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without line ends and byte order mark. Raises InputError where it is not UTF-8."""
    try:
        # Not splitlines, which also splits at characters that transcripts hold, such as U+2028.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it with iconv") from None
