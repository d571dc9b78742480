"""Which folder a user means: a bundle, the bundle of an experiment, one that comes with the package, an experiment itself."""

from pathlib import Path

import reallm
from reallm.bundle.layout import DESCRIPTION
from reallm.bundle.reader import load
from reallm.errors import InputError, nearest
from reallm.protocols import System


def published(name: str = "digits") -> Path:
    """The folder of a bundle that comes with the package. Raises InputError when there is none of that name."""
    bundles = Path(reallm.__file__).parent / "bundles"
    known = sorted(folder.name for folder in bundles.glob("*") if (folder / DESCRIPTION).is_file())
    if name not in known:
        raise InputError(f"this installation has no bundle '{name}'{nearest(name, known)} in {bundles}: name a folder")
    return bundles / name


def load_shared(path: Path) -> System:
    """The system of a bundle, or of the ``bundle/`` in an experiment folder, in eval mode.

    Runs nothing but registered components, so that a folder which somebody else made is safe to open.

    Raises InputError for any other folder, and as :func:`reallm.bundle.load`.
    """
    path = Path(path)
    for folder in (path, path / "bundle"):
        if (folder / DESCRIPTION).is_file():
            return load(folder)
    if (path / "config.yaml").is_file():
        raise InputError(f"{path} is an experiment that is not exported: reallm export {path} --out {path / 'bundle'}")
    raise InputError(
        f"{path} is neither a bundle (no {DESCRIPTION}) nor an experiment (no config.yaml): name what `reallm export` or `train` wrote"
    )


def load_system(path: Path, average: int | None = None) -> System:
    """The system of a bundle or of an experiment folder, in eval mode.

    Args:
        path: a bundle; or an experiment, whose ``bundle/`` is taken if it is there, else its ``config.yaml`` (which runs
            what it says, as training does) and checkpoints.
        average: take the checkpoints of an experiment, the last so many averaged, even if there is a bundle.

    Raises InputError for any other folder, for a bundle whose checkpoints are to be averaged, and as :func:`reallm.bundle.load`.
    """
    path = Path(path)
    shared = any((folder / DESCRIPTION).is_file() for folder in (path, path / "bundle"))
    if (path / "config.yaml").is_file() and (average is not None or not shared):
        from reallm.training.experiment import load_trained

        return load_trained(path, average)
    if average is not None:
        raise InputError(f"{path} has no checkpoints to average {average} of: name an experiment, or leave the number out")
    return load_shared(path)


def load_teacher(path: Path) -> System:
    """The system of a bundle or of an experiment folder, in eval mode, to align with.

    An experiment's checkpoints are taken wherever it has some: they have full precision, and an alignment must not depend on
    whether the experiment was exported meanwhile.

    Raises InputError as :func:`load_system`.
    """
    path = Path(path)
    if (path / DESCRIPTION).is_file() or not (path / "config.yaml").is_file():
        return load_system(path)
    from reallm.training.checkpoints import newest_whole
    from reallm.training.experiment import load_trained

    return load_system(path) if newest_whole(path / "checkpoints") is None else load_trained(path)
