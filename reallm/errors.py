"""What a user can do wrong."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: the message is one line that names the value and the fix.

    The command line prints it without a traceback and exits with code 2; any other exception is a bug.
    """


class CapacityError(InputError):
    """A stream or a sequence needs more positions than its decoder has room for."""


def at_least(least: float, **values: float) -> None:
    """Raises InputError for the first of the named values that is below ``least``."""
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name} is {value}: at least {least}")


def how_to_get(extra: str) -> str:
    """The command that installs the packages of an extra of setup.cfg."""
    return f"pip install '.[{extra}]' in your clone of reallm"


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to ``name``, if one is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as `` (did you mean 'x'?)`` with the known name nearest to ``name``, or an empty string."""
    found = nearest_name(name, known)
    return "" if found is None else f" (did you mean '{found}'?)"
