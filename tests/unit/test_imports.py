"""Imports point one way, and the command line starts without what it does not need yet."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reallm
from reallm.registry import KINDS

PACKAGE = Path(reallm.__file__).parent

# From the bottom up. A module may import from its own layer and from those below it.
BASE, LAYERS, PLUGINS, SYSTEMS, RUNNERS, USERS = range(6)
PLACES = {
    BASE: [
        "reallm",
        "types",
        "protocols",
        "errors",
        "fingerprints",
        "jobs",
        "memory",
        "device_memory",
        "registry",
        "resources",
        "config",
        "data",
        "metrics",
        # What every component needs to declare its state and window.
        "streaming.state",
        "streaming.constants",
        "streaming.host",
        "streaming.geometry",
        "streaming.context",
        "streaming.frame_queue",
    ],
    LAYERS: ["layers"],
    PLUGINS: [package.removeprefix("reallm.") for kind, package in KINDS.items() if kind != "system"],
    SYSTEMS: ["systems"],
    RUNNERS: ["training", "streaming", "bundle", "contract", "exporting"],
    USERS: ["cli", "serving"],
}


def place(module: str) -> int:
    """The layer of a module: the longest of its prefixes that has a place decides."""
    name = module.removeprefix("reallm.")
    for end in range(name.count(".") + 1, 0, -1):
        prefix = ".".join(name.split(".")[:end])
        for layer, names in PLACES.items():
            if prefix in names:
                return layer
    raise AssertionError(f"{module} has no place in the order of imports: add it to PLACES in {__file__}")


def imports(file: Path, module: str) -> Iterator[tuple[int, str]]:
    """(line, imported module) of every import of this package in the file, those inside functions too."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])])
            # `from reallm.streaming import state` names a module, `from reallm.types import Word` does not.
            names = [f"{base}.{a.name}" if is_module(f"{base}.{a.name}") else base for a in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "reallm")


def is_module(name: str) -> bool:
    path = PACKAGE.parent / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def modules() -> list[tuple[Path, str]]:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found.append((file, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    return found


def test_imports_point_one_way() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE.parent)}:{line} imports {imported}"
        for file, module in modules()
        for line, imported in imports(file, module)
        if place(imported) > place(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_test_module_imports_another() -> None:
    tests = Path(__file__).parents[1]
    found = re.compile(r"^\s*(?:from|import) (tests\.[\w.]*\btest_\w+)", re.MULTILINE)
    wrong = [f"{file.relative_to(tests)} imports {name}" for file in tests.rglob("*.py") for name in found.findall(file.read_text())]
    assert not wrong, "put what they share into tests/dummies or conftest.py:\n" + "\n".join(wrong)


def run(*command: str) -> str:
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("heavy", ["torch", "numpy", "lhotse", "speechbrain", "torchaudio", "matplotlib"])
def test_the_command_line_imports_nothing_heavy(heavy: str) -> None:
    assert run("-c", f"import reallm.cli, sys; print({heavy!r} in sys.modules)").strip() == "False"
