"""What every registered component must keep, as plain check functions (reallm/protocols.py).

``checks(kind)`` are functions of a component's class that raise ContractError with an explanation. The repository's tests
run them over the catalogue, ``reallm check NAME`` over any installed component.
"""

import importlib
from collections.abc import Callable

from reallm.contract.requirement import ContractError
from reallm.registry import catalogue

__all__ = ["Check", "ContractError", "checks", "summary"]

Check = Callable[[type], None]


def checks(kind: str) -> list[Check]:
    """The checks of a kind: those of all components, then its own. Raises InputError for an unknown kind."""
    catalogue(kind)  # names the known kinds if this is none
    general = importlib.import_module("reallm.contract.component")
    return [*general.CHECKS, *importlib.import_module(f"reallm.contract.{kind}").CHECKS]


def summary(check: Check) -> str:
    """The first line of the check's docstring, which says what must hold."""
    return (check.__doc__ or check.__name__).strip().splitlines()[0]
