"""What is declared, shipped and pinned: dependencies and extras, resources in a wheel, exact versions."""

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from reallm import __version__, resources
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
    if file.is_relative_to(ROOT / "tests"):
        ours |= {bench.stem for bench in ROOT.glob("tools/bench/_*.py")}  # what its scripts share
    if file.is_relative_to(ROOT / "egs"):
        ours |= {beside.stem for beside in file.parent.glob("*.py")}  # a recipe's scripts import each other
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
    wanted = base().union(*(requirements(extras[name]) for name in ("train", "synth", "dask", "llm", "onnx", "dev")))
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], Path]:
    """What a wheel of the checkout's files should hold, and it, unpacked."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = {name for name in listed if (ROOT / name).is_file() and not name.startswith("tests/")}
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    # What a run of a recipe, and an older build, leave behind.
    for left in ("egs/TEMPLATE/exp/conf/config.yaml", "build/lib/reallm/resources/hparams/encoder/gone.yaml"):
        (source / left).parent.mkdir(parents=True)
        (source / left).write_text("left: behind")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(site), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(site.glob("reallm-*.whl"))) as archive:
        archive.extractall(site)
    configuration = {f"reallm/resources/{name}" for name in files if name.startswith(("hparams/", "egs/")) and name.endswith(".yaml")}
    return {name for name in files if name.startswith("reallm/")} | configuration, site


def test_a_wheel_holds_the_package_its_bundle_and_the_configuration_and_nothing_else(wheel: tuple[set[str], Path]) -> None:
    wanted, site = wheel
    assert {str(file.relative_to(site)) for file in (site / "reallm").rglob("*") if file.is_file()} == wanted
    assert {"reallm/py.typed", "reallm/bundles/digits/model.safetensors", "reallm/resources/egs/digits/conf/ctc.yaml"} <= wanted
    assert sorted(path.name for path in site.iterdir() if path.is_dir()) == ["reallm", f"reallm-{__version__}.dist-info"]
    assert (site / f"reallm-{__version__}.dist-info/licenses/LICENSE").is_file()
    assert "reallm = reallm.cli:main" in (site / f"reallm-{__version__}.dist-info/entry_points.txt").read_text()


def test_an_installed_wheel_checks_its_configuration_and_transcribes(wheel: tuple[set[str], Path], tmp_path: Path) -> None:
    """From another folder, where neither hparams/ nor egs/ is near."""
    site = wheel[1]
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)

    def reallm(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        code = "import sys, reallm.cli; print(reallm.__file__, file=sys.stderr); reallm.cli.main(sys.argv[1:])"
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(str(site))
        return done.stdout

    names = ["egs/digits/conf/speech_reallm.yaml", "egs/TEMPLATE/conf/ctc.yaml", "hparams/encoder/lstm.yaml"]
    assert reallm("config", "check", *names) == "3 files without problems\n"
    assert json.loads(reallm("transcribe", "--json", "silence.wav"))["seconds_of_audio"] == 1.0
