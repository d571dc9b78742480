"""What is declared, shipped and pinned: dependencies and extras, resources in a wheel, exact versions."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from reallm import resources
from reallm.errors import InputError

ROOT = Path(__file__).parents[2]

# Where the name of the import is not the name of the package.
DISTRIBUTIONS = {"ruamel": "ruamel.yaml", "espeakng_loader": "espeakng-loader", "_pytest": "pytest"}


def requirements(text: str) -> list[str]:
    return [re.split(r"[<>=\[;]", line)[0].strip().lower() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def base() -> set[str]:
    return set(requirements(setup_cfg()["options"]["install_requires"]))


def declared() -> set[str]:
    return base().union(*(requirements(extra) for extra in setup_cfg()["options.extras_require"].values()))


def third_party(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    ours = {"reallm", "tests", "conftest", "k2"}  # k2 comes by tools/install_k2.sh
    return {DISTRIBUTIONS.get(n, n).lower() for n in names if n not in sys.stdlib_module_names and n not in ours}


def test_every_import_is_declared() -> None:
    missing = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in [*ROOT.glob("reallm/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("egs/*/local/*.py")]
        for name in third_party(file)
        if name not in declared()
    }
    assert not missing


def test_every_declared_package_is_pinned() -> None:
    pinned = {re.sub(r"[-_.]+", "-", name) for name in requirements((ROOT / "tools/requirements.lock").read_text())}
    extras = setup_cfg()["options.extras_require"]
    wanted = base().union(*(requirements(extras[name]) for name in ("train", "synth", "dev")))
    assert {re.sub(r"[-_.]+", "-", name) for name in wanted} <= pinned


def test_transcribing_needs_no_training_stack() -> None:
    """With everything but the base install hidden, all that `reallm transcribe` imports still imports."""
    hidden = sorted(declared() - base() - {"pytest"})
    code = f"""
import importlib, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {[name.split(".")[0].replace("-", "_") for name in hidden]}:
            raise ModuleNotFoundError(f"hidden: {{name}}")

sys.meta_path.insert(0, Hidden())
from reallm.registry import KINDS, catalogue
for kind in KINDS:
    assert catalogue(kind), kind
import reallm.bundle, reallm.cli.transcribe, reallm.streaming.recognizer
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resources_are_found_in_a_checkout() -> None:
    assert resources.path("egs/TEMPLATE/run.sh").read_text().startswith("#!")
    with pytest.raises(InputError, match=r"did you mean 'egs/TEMPLATE/run.sh'"):
        resources.path("egs/TEMPLATE/rum.sh")
    for name in ("setup.cfg", "", "hparams/../setup.cfg"):
        with pytest.raises(InputError, match="must begin with hparams/ or egs/"):
            resources.path(name)


def test_a_wheel_carries_resources_and_bundles(tmp_path: Path) -> None:
    """Built and unpacked elsewhere, the package finds its configuration, and relative includes still resolve."""
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    (source / "reallm/bundles/tiny").mkdir(parents=True)
    (source / "reallm/bundles/tiny/model.safetensors").write_bytes(b"weights")
    (source / "egs/TEMPLATE/exp").mkdir()
    (source / "egs/TEMPLATE/exp/config.yaml").write_text("left: behind")

    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("reallm-*.whl"))) as wheel:
        names = wheel.namelist()
        wheel.extractall(site)
    assert "reallm/bundles/tiny/model.safetensors" in names
    assert "reallm/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "hparams/", "egs/")) or "/exp/" in name]

    code = "from reallm import resources; print(resources.path('egs/TEMPLATE/conf')); print(resources.path('hparams'))"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [str(Path(p).relative_to(site)) for p in where] == ["reallm/resources/egs/TEMPLATE/conf", "reallm/resources/hparams"]
    shipped = {name.removeprefix("reallm/resources/") for name in names}
    for folder in ("hparams", "egs"):
        for file in (source / folder).rglob("*.yaml"):
            relative = str(file.relative_to(source))
            assert relative in shipped or "/exp/" in relative
            for included in re.findall(r"!include:(\S+\.yaml)", file.read_text()) if relative in shipped else []:
                assert (site / "reallm/resources" / relative).parent.joinpath(included).resolve().is_file()
