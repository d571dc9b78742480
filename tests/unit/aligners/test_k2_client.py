"""The worker process: found, fed, dead, absent."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reallm.aligners import k2_client
from reallm.errors import InputError

REQUEST = (np.zeros((1, 3, 3), np.float32), np.array([3]), np.array([0, 1]), np.array([2]))


@pytest.fixture
def fresh():
    """No connection from an earlier test, and none left to a later one."""
    k2_client._search.cache_clear()
    yield
    k2_client._search.cache_clear()


@pytest.fixture
def worker():
    pythons = k2_client.candidate_pythons()
    if not pythons:
        pytest.skip("k2 runs in process, without a worker")
    worker = k2_client.Worker(pythons[0])
    yield worker
    worker.close()


def fake_k2(tmp_path: Path, body: str) -> Path:
    """An interpreter whose k2 is ``body``."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'main.py'}\n")
    script.chmod(0o755)
    (tmp_path / "main.py").write_text(body)
    return script


@pytest.mark.k2
def test_one_worker_answers_many_requests_survives_an_error_and_closes(worker: k2_client.Worker):
    process = worker._process.pid
    for _ in range(3):
        assert sorted(set(worker.call("labels", *REQUEST).tolist())) in ([0, 1], [0, 1, 2])
    with pytest.raises(InputError, match="k2 failed"):
        worker.call("labels", REQUEST[0], np.array([-5]), REQUEST[2], REQUEST[3])
    assert worker.call("labels", *REQUEST).shape == (3,)
    assert worker._process.pid == process
    worker.close()
    assert worker._process.returncode == 0


@pytest.mark.k2
def test_worker_ends_with_its_parent():
    code = (
        "import os; from reallm.aligners import k2_client as c\n"
        "w = c.connect(); print(w._process.pid if isinstance(w, c.Worker) else '', flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(k2_client.reallm.__file__).parents[1]
    )
    if not done.stdout.strip():
        pytest.skip("k2 runs in process, without a worker")
    command_line = Path(f"/proc/{done.stdout.strip()}/cmdline")
    for _ in range(100):
        if not command_line.exists() or not command_line.read_bytes():
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


@pytest.mark.k2
def test_killed_worker_is_a_clear_error_and_replaced(fresh: None):
    worker = k2_client.connect()
    if not isinstance(worker, k2_client.Worker):
        pytest.skip("k2 runs in process, without a worker")
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    with pytest.raises(InputError, match=r"died with exit status -9.*--backend torch"):
        worker.call("labels", *REQUEST)
    again = k2_client.connect()
    assert again is not worker
    assert again.call("labels", *REQUEST).shape == (3,)


def test_dying_worker_says_its_last_words(tmp_path: Path):
    python = fake_k2(
        tmp_path,
        f"import sys; sys.path.insert(0, {str(k2_client.WORKER.parent)!r}); import k2_worker as w, os\n"
        "w._answer(sys.stdout.buffer, 0, b'1.0'); sys.stdin.buffer.read(10); print('out of memory', file=sys.stderr); sys.exit(7)",
    )
    worker = k2_client.Worker(python)
    assert worker.version == "1.0"
    with pytest.raises(InputError, match=r"exit status 7 \(out of memory\)"):
        worker.call("labels", *REQUEST)


def test_named_python_without_k2_is_an_error(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(k2_client.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv(k2_client.PYTHON_VARIABLE, str(fake_k2(tmp_path, "import k2_that_is_not_there")))
    with pytest.raises(InputError, match=r"REALLM_K2_PYTHON: .*No module named 'k2_that_is_not_there'"):
        k2_client.connect()
    monkeypatch.setenv(k2_client.PYTHON_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="cannot be run"):
        k2_client.connect()


def test_worker_is_old_python_and_imports_nothing_of_ours():
    tree = ast.parse(k2_client.WORKER.read_text(), feature_version=(3, 8))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name.split(".")[0] for node in found if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"contextlib", "os", "struct", "sys", "numpy", "torch", "k2"}
    assert not [node for node in found if isinstance(node, ast.ImportFrom)]
