"""The Python in README.md runs as it stands, block after block, with the digits bundle and a recording."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from reallm.bundle import load, published
from reallm.streaming.engine import Engine

README = Path(__file__).parents[2] / "README.md"


def block_with(text: str) -> str:
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if text in block)
    return str(found)


def test_one_stream_and_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("recording.wav", 0.01 * np.random.default_rng(0).standard_normal(16000), 16000)
    names: dict[str, Any] = {}
    for text in ("import soundfile", "system = with_compiled_layers", "import Engine\n"):
        exec(block_with(text), names)
    assert names["stream"].is_final
    with Engine(load(published("digits")), slots=2) as names["engine"]:
        exec(block_with("end_of_speech=0.8"), names)
    capsys.readouterr()
