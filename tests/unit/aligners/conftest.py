"""The fixture of tests that need k2."""

import os

import pytest

from reallm.aligners import k2_client


@pytest.fixture
def k2_backend() -> None:
    """k2 answers; else the test is skipped, or fails where k2 is required (CI)."""
    try:
        k2_client.connect()
    except k2_client.K2Missing as missing:
        if os.environ.get("REALLM_REQUIRE_K2") == "1":
            pytest.fail(f"REALLM_REQUIRE_K2=1, but there is no k2: {missing}")
        pytest.skip(f"no k2: {missing}")
