"""What all tests share: tests marked ``k2`` need k2, real recordings come from $REALLM_DATA."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """Hypothesis looks into every loaded module, which would make SpeechBrain's lazy ones import what is not installed."""
    for name, module in list(sys.modules.items()):
        if type(module).__module__ == "speechbrain.utils.importutils":
            del sys.modules[name]


@cache
def k2_python() -> str | None:
    """The first Python with k2, looked for where the aligner looks: in process, $REALLM_K2_PYTHON, the side environment."""
    for python in (sys.executable, os.environ.get("REALLM_K2_PYTHON"), str(ROOT / ".venv-k2/bin/python")):
        if python and Path(python).exists() and subprocess.run([python, "-c", "import k2"], capture_output=True).returncode == 0:
            return python
    return None


@pytest.fixture(autouse=True)
def _k2_where_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("k2") and k2_python() is None:
        message = "k2 is not installed: tools/install_k2.sh"
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
