"""The ``reallm`` command, in this process."""

import pytest

from reallm.cli import main


def run(*arguments: object) -> int:
    """The exit code of ``reallm ARGUMENTS…``."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)
