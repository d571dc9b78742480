"""Run-time settings of a system's components, as ``--set searcher.blank_penalty=2``."""

import inspect
from collections.abc import Sequence
from typing import Any

from reallm.errors import InputError, nearest


def apply_settings(system: Any, settings: Sequence[str]) -> dict[str, Any]:
    """Set number-valued constructor arguments of components of ``system``; returns what was set.

    Raises InputError for a setting that is not PART.NAME=NUMBER, or names something that the system does not have.
    """
    from reallm.registry import spec_of

    done: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        part, dot, name = path.partition(".")
        if not (equals and dot):
            raise InputError(f"--set '{setting}': write PART.NAME=NUMBER, such as searcher.blank_penalty=2")
        parts = [n for n, value in spec_of(system).kwargs.items() if hasattr(value, "component_spec")]
        if part not in parts:
            raise InputError(f"--set '{setting}': the system has no '{part}'{nearest(part, parts)}: one of {', '.join(parts)}")
        component = getattr(system, part)
        arguments = inspect.signature(type(component).__init__).parameters
        names = [n for n in arguments if type(getattr(component, n, None)) in (int, float)]
        if name not in names:
            raise InputError(f"--set '{setting}': {part} has no number '{name}'{nearest(name, names)}: it has {', '.join(names) or 'none'}")
        try:
            value = type(getattr(component, name))(text)
        except ValueError:
            raise InputError(f"--set '{setting}': '{text}' is not a {type(getattr(component, name)).__name__}") from None
        setattr(component, name, value)
        done[path] = value
    return done
