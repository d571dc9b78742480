"""Where the configuration that comes with the toolkit lies: in a checkout, and after a plain ``pip install``."""

from pathlib import Path

from reallm.errors import InputError, nearest

_INSTALLED = Path(__file__).parent
_CHECKOUT = _INSTALLED.parents[1]


def root() -> Path:
    """The folder that holds ``hparams/`` and ``egs/``.

    Raises InputError when neither a checkout nor an installation holds them.
    """
    for folder in (_INSTALLED, _CHECKOUT):
        if (folder / "hparams").is_dir() and (folder / "egs").is_dir():
            return folder
    raise InputError(f"neither {_INSTALLED} nor {_CHECKOUT} holds hparams/ and egs/: install reallm again")


def path(name: str) -> Path:
    """The file or folder of that name, such as ``hparams/encoder/conformer.yaml`` or ``egs/digits/conf``.

    Raises InputError that names the nearest known one.
    """
    folder = root()
    parts = Path(name).parts
    if not parts or parts[0] not in ("hparams", "egs") or ".." in parts:
        raise InputError(f"resource '{name}' must begin with hparams/ or egs/")
    found = folder / name
    if not found.exists():
        known = [str(p.relative_to(folder)) for p in (folder / parts[0]).rglob("*") if p.suffix in {".yaml", ".sh"}]
        raise InputError(f"no resource '{name}' in {folder}{nearest(name, known)}")
    return found
