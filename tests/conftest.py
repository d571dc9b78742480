"""What all tests share: nothing is downloaded, tests marked ``k2`` need k2, real recordings come from $REALLM_DATA."""

import os
import sys
from functools import cache
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded, whatever a library would like to look up


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """Hypothesis looks into every loaded module, which would make SpeechBrain's lazy ones import what is not installed."""
    for name, module in list(sys.modules.items()):
        if type(module).__module__ == "speechbrain.utils.importutils":
            del sys.modules[name]


@cache
def why_no_k2() -> str | None:
    """Why the aligner finds no k2; None where it does."""
    from reallm.aligners import k2_client
    from reallm.errors import InputError

    try:
        k2_client.connect()
    except (k2_client.K2Missing, InputError) as missing:
        return f"no k2 ({missing}): {k2_client.HOW_TO_GET}"
    return None


@pytest.fixture(autouse=True)
def _k2_where_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("k2") and (message := why_no_k2()):
        if os.environ.get("REALLM_REQUIRE_K2") == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that are about them are skipped without it."""
    folder = os.environ.get("REALLM_DATA")
    if not folder:
        pytest.skip("REALLM_DATA is not set: no real recordings")
    return Path(folder)
