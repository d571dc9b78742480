"""A bundle to a system. It builds registered components from plain arguments and copies arrays into them; it can run nothing else."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from reallm import __version__
from reallm.bundle.layout import DESCRIPTION, FORMAT, WEIGHTS, join
from reallm.errors import InputError, how_to_get, nearest
from reallm.protocols import ChunkSpec, System
from reallm.registry import find, takes_path

PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class _Reader:
    """JSON to components, of registered classes only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: dict[str, Any] = {}  # place → component

    def fail(self, message: str) -> InputError:
        return InputError(f"bundle {self.folder}: {message}")

    def component(self, description: Any, place: str) -> Any:
        if (
            not isinstance(description, dict)
            or description.keys() != {"kind", "name", "kwargs"}
            or not isinstance(description["kwargs"], dict)
        ):
            raise self.fail(f"'{place or 'system'}' is not a component: it needs kind, name and kwargs")
        kind, name = description["kind"], description["name"]
        if not (isinstance(kind, str) and isinstance(name, str)):
            raise self.fail(f"'{place or 'system'}': kind and name must be text")
        try:
            cls = find(kind, name)
        except InputError as error:
            raise self.fail(f"{error}; if it is a plugin's, install the plugin") from None
        known = [n for n in inspect.signature(cls.__init__).parameters if n != "self"]
        for argument in description["kwargs"]:
            if argument not in known:
                raise self.fail(f"{kind} '{name}' has no argument '{argument}'{nearest(argument, known)}: one of {', '.join(known)}")
        kwargs = {}
        for argument, value in description["kwargs"].items():
            kwargs[argument] = self.value(value, join(place, argument))
            if isinstance(kwargs[argument], str) and takes_path(cls, argument):
                raise self.fail(f"'{join(place, argument)}' names the file {value!r} outside of the bundle: export it again")
        try:
            built = cls(**kwargs)
        except InputError as error:
            raise self.fail(f"{kind} '{name}': {error}") from None
        except ModuleNotFoundError as error:
            raise self.fail(f"{kind} '{name}' needs {(error.name or '').partition('.')[0]}: {how_to_get('train')}") from None
        except Exception as error:  # whatever a constructor does with arguments that no exporter wrote
            reason = " ".join(str(error).split())
            raise self.fail(f"{kind} '{name}' does not take the arguments given ({reason}): export it again") from error
        self.built[place] = built
        return built

    def value(self, value: Any, place: str) -> Any:
        if isinstance(value, list):
            return [self.value(item, f"{place}.{n}") for n, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if "kind" in value:
            return self.component(value, place)
        if len(value) == 1:
            [(tag, content)] = value.items()
            if tag == "asset" and isinstance(content, str):
                return self.asset(content)
            if tag == "tuple" and isinstance(content, list):
                return tuple(self.value(item, f"{place}.{n}") for n, item in enumerate(content))
            if tag == "mapping" and isinstance(content, dict):
                return {key: self.value(item, f"{place}.{key}") for key, item in content.items()}
            if tag == "same_as" and isinstance(content, str) and content in self.built:
                return self.built[content]
            if tag == "chunk" and isinstance(content, dict):
                try:
                    return ChunkSpec(**content)
                except (TypeError, ValueError) as error:
                    raise self.fail(f"'{place}': {error}") from None
        raise self.fail(f"'{place}' is neither a value nor a component: {str(value)[:80]}")

    def asset(self, name: str) -> Path:
        if Path(name).name != name or not (self.folder / name).is_file():
            raise self.fail(f"asset '{name}' is not in the folder: export the bundle again")
        return self.folder / name


def refuse_pickles(folder: Path) -> None:
    """Raises InputError where a file in ``folder``, or below, is one whose loading can run code."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as handle:
                magic = handle.read(4)
            if file.suffix.lower() in PICKLE_SUFFIXES or magic.startswith(PICKLE_MAGIC):
                raise InputError(f"bundle {folder}: {file.name} is a pickle or archive, which can run code: a bundle has safetensors alone")


def read_description(path: Path) -> dict[str, Any]:
    """The content of ``bundle.json``. Raises InputError where there is none, it is broken, or of another format."""
    file = Path(path) / DESCRIPTION
    if not file.is_file():
        raise InputError(f"{path} is no bundle: it has no {DESCRIPTION}")
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"bundle {path}: {DESCRIPTION} is not valid JSON ({error}): export it again") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(f"bundle {path}: its format is not {FORMAT}, the one that reallm {__version__} reads")
    return description


def load(path: Path) -> System:
    """The system of the bundle in folder ``path``, with its weights, on the CPU, in eval mode.

    Raises InputError for a folder that is no bundle, an unknown component or argument, a missing asset, weights that are
    missing, of a wrong shape or left over, and for any pickle in the folder.
    """
    path = Path(path)
    description = read_description(path)
    refuse_pickles(path)
    reader = _Reader(path)
    system = reader.component(description.get("system"), "")
    if description["system"]["kind"] != "system" or not isinstance(system, torch.nn.Module):
        raise reader.fail(f"{description['system']['kind']} '{description['system']['name']}' is not a system")
    _load_weights(system, path / WEIGHTS, reader)
    trained: System = system.eval()  # type: ignore[assignment]
    return trained


def _load_weights(system: torch.nn.Module, file: Path, reader: _Reader) -> None:
    if not file.is_file():
        raise reader.fail(f"{WEIGHTS} is missing: export the bundle again")
    target = system.state_dict()
    try:
        with safe_open(file, framework="pt") as stored:
            names = set(stored.keys())
            missing, extra = sorted(target.keys() - names), sorted(names - target.keys())
            if missing:
                raise reader.fail(
                    f"{WEIGHTS} lacks {len(missing)} weights, such as '{missing[0]}'{nearest(missing[0], extra)}: export it again"
                )
            if extra:
                raise reader.fail(
                    f"{WEIGHTS} has {len(extra)} weights that the system does not know, such as '{extra[0]}': export it again"
                )
            for name, tensor in target.items():
                shape = tuple(stored.get_slice(name).get_shape())
                if shape != tuple(tensor.shape):
                    raise reader.fail(f"weight '{name}' has shape {shape}, the system needs {tuple(tensor.shape)}: export it again")
            with torch.no_grad():
                for name, tensor in target.items():
                    tensor.copy_(stored.get_tensor(name))
                    if not bool(torch.isfinite(tensor).all()):
                        raise reader.fail(f"weight '{name}' holds NaN or infinity: copy or export it again")
    except SafetensorError as error:
        raise reader.fail(f"{WEIGHTS} is damaged ({error}): copy or export it again") from None
