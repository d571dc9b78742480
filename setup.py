"""Metadata is in setup.cfg; here is only what it cannot say: the YAML files of hparams/ and egs/ are installed in reallm/resources.

They keep their places relative to each other, so that the relative ``!include:`` paths of a recipe work installed too.
Its scripts are for a clone: they set it up.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


def resources() -> list[Path]:
    """The files to install, relative to the checkout."""
    return sorted(file.relative_to(HERE) for pattern in ("hparams/**/*.yaml", "egs/*/conf/**/*.yaml") for file in HERE.glob(pattern))


class BuildWithResources(build_py):
    """Adds the resources to a wheel; an editable install reads them from the checkout."""

    def _targets(self) -> dict[Path, Path]:
        return {HERE / file: Path(self.build_lib, "reallm", "resources", file) for file in resources()}

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            # build/ outlives a build: what was deleted or renamed since must not be shipped.
            for folder in ("hparams", "egs"):
                shutil.rmtree(Path(self.build_lib, "reallm", "resources", folder), ignore_errors=True)
            for source, target in self._targets().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        added = [] if self.editable_mode else [str(target) for target in self._targets().values()]
        return super().get_outputs(include_bytecode) + added


setup(cmdclass={"build_py": BuildWithResources})
