"""Every registered component keeps its contract."""

import pytest

from reallm.contract import checks
from reallm.registry import KINDS, catalogue

CASES = [
    pytest.param(cls, check, id=f"{kind}-{name}-{check.__name__.removeprefix('check_')}")
    for kind in KINDS
    for name, cls in catalogue(kind).items()
    for check in checks(kind)
]


@pytest.mark.parametrize(("component", "check"), CASES)
def test_keeps_its_contract(component, check):
    check(component)


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_two_of_a_kind(kind):
    assert len(catalogue(kind)) >= 2
