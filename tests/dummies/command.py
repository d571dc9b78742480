"""The ``reallm`` command, in this process."""

import pytest
from typer.testing import CliRunner

from reallm.cli import app, main
from reallm.cli.data import app as data_app


def run(*arguments: object) -> int:
    """The exit code of ``reallm ARGUMENTS…``."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)


def run_and_read(*arguments: object) -> tuple[int, str]:
    """The exit code of ``reallm ARGUMENTS…``, and all that it prints."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, result.output


def run_data(*arguments: object) -> str:
    """What ``reallm data ARGUMENTS…`` prints. Raises what it raises."""
    result = CliRunner().invoke(data_app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
