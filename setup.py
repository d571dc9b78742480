"""Metadata is in setup.cfg; here is only what it cannot say: hparams/ and egs/ are installed inside reallm/resources.

Both keep their places relative to each other, so that the relative ``!include:`` paths of a recipe work installed too.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SUFFIXES = {".yaml", ".sh", ".md", ".py"}
NOT_SHIPPED = {"exp", "data", "downloads"}  # of a recipe: what running it leaves behind


def resources() -> list[Path]:
    """The files to install, relative to the checkout."""
    files = [*HERE.glob("hparams/**/*"), *HERE.glob("egs/**/*")]
    relative = [file.relative_to(HERE) for file in sorted(files) if file.is_file() and file.suffix in SUFFIXES]
    return [file for file in relative if not (file.parts[0] == "egs" and len(file.parts) > 3 and file.parts[2] in NOT_SHIPPED)]


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
