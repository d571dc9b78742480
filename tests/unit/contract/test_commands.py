"""``reallm components`` and ``reallm check``, with a component of an outside package too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reallm.cli import main
from reallm.cli.components import describe
from reallm.registry import KINDS, broken_plugins


def reallm(capsys, *args):
    with pytest.raises(SystemExit) as left:
        main(args)
    shown = capsys.readouterr()
    return left.value.code or 0, shown.out, shown.err


def test_catalogue_as_json(capsys):
    code, out, _ = reallm(capsys, "components", "--json")
    found = json.loads(out)
    assert code == 0
    assert {component["kind"] for component in found} == set(KINDS)
    conformer = next(c for c in found if (c["kind"], c["name"]) == ("encoder", "conformer"))
    assert conformer.keys() == {"kind", "name", "summary", "parameters"}
    assert conformer["summary"].startswith("Conformer")
    parameters = {p["name"]: p for p in conformer["parameters"]}
    assert parameters["input_dim"] == {"name": "input_dim", "type": "int", "required": True, "default": None}
    assert parameters["chunk_size"] == {"name": "chunk_size", "type": "int", "required": False, "default": 8}


def test_one_kind_as_a_table(capsys):
    code, out, _ = reallm(capsys, "components", "adapter")
    assert code == 0
    assert "stack" in out
    assert "stride = 2" in out
    assert "conformer" not in out


def test_unknown_kind(capsys):
    code, _, err = reallm(capsys, "components", "encodr")
    assert code == 2
    assert "did you mean 'encoder'" in err


def test_defaults_are_plain_json():
    json.dumps([describe(kind) for kind in KINDS], allow_nan=False)


def test_a_sound_component(capsys):
    code, out, _ = reallm(capsys, "check", "stack")
    assert code == 0
    assert "kept" in out
    assert "broken" not in out


def test_a_name_of_two_kinds_needs_the_kind(capsys):
    code, _, err = reallm(capsys, "check", "lstm")
    assert code == 2
    assert "encoder, decoder, predictor: choose one with --kind" in err
    assert reallm(capsys, "check", "lstm", "--kind", "encoder")[0] == 0


def test_an_unknown_name(capsys):
    code, _, err = reallm(capsys, "check", "conformr")
    assert code == 2
    assert "did you mean 'conformer'" in err


OUTSIDE = '''
from typing import Self

from reallm.encoders.lstm import LSTMEncoder
from reallm.registry import register


@register("encoder", "outside")
class OutsideEncoder(LSTMEncoder):
    """An encoder of another package."""

    def __init__(self, input_dim: int, dim: int = 16) -> None:
        super().__init__(input_dim, dim, layers=2, chunk_size=3, dropout=0.0)

    @classmethod
    def tiny(cls) -> Self:
        return cls(8)


@register("encoder", "outside_broken")
class BrokenEncoder(OutsideEncoder):
    """Forgets everything between chunks."""

    def __init__(self, input_dim: int) -> None:
        super().__init__(input_dim)

    def step(self, feats, lens, final, state):
        return super().step(feats, lens, final, self.init_state(feats.size(0), dtype=feats.dtype))
'''


def install(folder: Path, code: str = OUTSIDE) -> None:
    """What pip leaves of a package with one module and one entry point."""
    (folder / "outside_encoders.py").write_text(code)
    info = folder / "outside_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reallm.plugins]\noutside = outside_encoders\n")


def test_a_component_of_an_outside_package(tmp_path):
    install(tmp_path)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "COLUMNS": "200"}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "reallm.cli", *args], env=environment, capture_output=True, text=True)

    sound = run("check", "outside")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    broken = run("check", "outside_broken")
    assert broken.returncode == 1
    assert "differs by" in broken.stdout


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    install(tmp_path, "import a_package_that_is_gone")
    monkeypatch.syspath_prepend(tmp_path)
    broken_plugins.cache_clear()
    yield (
        "plugin 'outside' of outside-encoders 1.0 cannot be loaded (ModuleNotFoundError: No module named 'a_package_that_is_gone'): "
        "mend it (python -c 'import outside_encoders' shows where), or uninstall it"
    )
    broken_plugins.cache_clear()


def test_a_plugin_that_cannot_be_loaded_leaves_the_others_alone(capsys, broken_plugin):
    code, out, err = reallm(capsys, "components", "--json")
    assert code == 0
    assert {component["kind"] for component in json.loads(out)} == set(KINDS)
    assert err == f"reallm: warning: {broken_plugin}\n"
    code, out, err = reallm(capsys, "check", "stack")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("options", [[], ["--kind", "encoder"]])
def test_a_component_that_a_broken_plugin_might_have_names_it(capsys, broken_plugin, options):
    code, _, err = reallm(capsys, "check", "outside", *options)
    assert code == 2
    assert err.startswith("reallm: error: unknown ")
    assert err.endswith(f"; {broken_plugin}\n")
    assert len(err.splitlines()) == 1
