"""Errors that are kept, and raised whenever what they ended is used: they do not grow by that, and hold no audio."""

import traceback

from reallm.errors import InputError


def anew(error: InputError) -> InputError:
    """A copy to raise. What is raised itself gets longer by a traceback each time, and holds what is in all frames that it went through."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def caused(reason: str, error: Exception) -> InputError:
    """``reason``, and ``error`` behind it: where it was raised stays known, and what was in the frames that it came from is let go."""
    behind: BaseException | None = error
    while behind is not None:
        traceback.clear_frames(behind.__traceback__)
        behind = behind.__context__
    found = InputError(reason)
    found.__cause__ = error
    return found
