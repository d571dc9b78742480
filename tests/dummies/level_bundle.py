"""The level system, registered for as long as it is needed: the catalogue of other tests must not show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reallm import registry
from reallm.bundle import export
from reallm.registry import register
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.recognizer import LevelSystem

METADATA = {"title": "Levels", "training_data": "none at all", "license": "CC0", "wer": "0.1 %"}


@contextmanager
def registered_level_system() -> Iterator[type[LevelSystem]]:
    """The class, known to the registry meanwhile."""
    construct = LevelSystem.__init__
    try:
        yield register("system", "levels")(LevelSystem)
    finally:
        LevelSystem.__init__ = construct  # type: ignore[method-assign]
        del registry._components["system", "levels"]


def write_level_bundle(folder: Path) -> Path:
    """A bundle of a registered level system in ``folder``."""
    export(LevelSystem(CharacterTokenizer.tiny(folder.parent)).eval(), folder, METADATA)
    return folder
