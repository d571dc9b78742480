"""A trained system as a folder that is safe to share and to load.

::

    bundle.json          {"format": 1, "metadata": {…}, "system": {"kind", "name", "kwargs"}}, components nested in kwargs
    model.safetensors    the weights, half precision
    README.md            the model card
    <component>.<argument>…   files that components were built from, such as the tokenizer's

Loading builds registered components from plain arguments and copies arrays into them; it can run nothing else. Values
that JSON does not have are written as objects of one key: ``{"asset": file}``, ``{"tuple": […]}``, ``{"mapping": {…}}``,
``{"chunk": {…}}``, ``{"same_as": "encoder"}`` for a component that stands in two places.
"""

import dataclasses
import inspect
import json
import shutil
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reallm import __version__
from reallm.data.files import atomic_folder
from reallm.errors import InputError, nearest
from reallm.protocols import ChunkSpec, System
from reallm.registry import ComponentSpec, find, spec_of

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _takes_path(cls: type, argument: str) -> bool:
    """Whether the constructor's argument is annotated as a path, alone or in a union."""
    construct: Any = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    try:
        annotation = typing.get_type_hints(construct).get(argument)
    except NameError:
        annotation = construct.__annotations__.get(argument)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) else (annotation,)
    return any(option is Path or option == "Path" for option in options)


class _Writer:
    """Constructor arguments to JSON, files to the bundle's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[int, str] = {}  # id of a component → its place

    def component(self, component: object, place: str) -> dict[str, Any]:
        if id(component) in self.written:
            return {"same_as": self.written[id(component)]}
        self.written[id(component)] = place
        spec = spec_of(component)
        kwargs = {name: self.argument(value, _join(place, name), spec) for name, value in spec.kwargs.items()}
        return {"kind": spec.kind, "name": spec.name, "kwargs": kwargs}

    def argument(self, value: Any, place: str, spec: ComponentSpec) -> Any:
        argument = place.rpartition(".")[2]
        if isinstance(value, Path) or (isinstance(value, str) and _takes_path(find(spec.kind, spec.name), argument)):
            return self.asset(Path(value), place)
        return self.value(value, place)

    def value(self, value: Any, place: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Path):
            return self.asset(value, place)
        if isinstance(value, ChunkSpec):
            return {"chunk": dataclasses.asdict(value)}
        if isinstance(value, list | tuple):
            items = [self.value(item, f"{place}.{n}") for n, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"mapping": {key: self.value(item, f"{place}.{key}") for key, item in value.items()}}
        if hasattr(value, "component_spec"):
            return self.component(value, place)
        raise InputError(f"{place} is a {type(value).__qualname__}, which a bundle cannot hold: numbers, text, lists, paths, components")

    def asset(self, source: Path, place: str) -> dict[str, str]:
        if not source.is_file():
            raise InputError(f"{place} names the file {source}, which is not there: a bundle needs it")
        name = place + source.suffix
        shutil.copyfile(source, self.folder / name)
        return {"asset": name}


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _weights(system: torch.nn.Module, half: bool) -> dict[str, torch.Tensor]:
    """Parameters in half precision, buffers (statistics) as they are."""
    parameters = {name for name, _ in system.named_parameters(remove_duplicate=False)}
    weights = {}
    for name, tensor in system.state_dict().items():
        stored = tensor.detach().cpu()
        if not bool(torch.isfinite(stored).all()):
            raise InputError(f"weight {name} holds NaN or infinity: this training has diverged, export an earlier checkpoint")
        if half and name in parameters and stored.is_floating_point():
            stored = stored.half()
            if not bool(torch.isfinite(stored).all()):
                raise InputError(f"weight {name} is too large for half precision: export with half=False")
        weights[name] = stored.clone().contiguous()
    return weights


def model_card(metadata: Mapping[str, Any], system: torch.nn.Module) -> str:
    """The README of a bundle: what it is, what it was trained on, under which licence, how to use it."""
    spec = spec_of(system)
    parameters = sum(p.numel() for p in system.parameters())
    known = {"title", "training_data", "license"}
    rows = "".join(f"| {key} | {value} |\n" for key, value in metadata.items() if key not in known)
    return f"""# {metadata.get("title", spec.name)}

| | |
|---|---|
| system | {spec.name}, {parameters:,} parameters |
| training data | {metadata["training_data"]} |
| licence | {metadata["license"]} |
| made with | reallm {__version__} |
{rows}
Transcribe with `reallm transcribe --model DIR FILE`, or in Python:

```python
from reallm.bundle import load
from reallm.streaming.recognizer import Recognizer

stream = Recognizer(load("DIR")).stream()
stream.accept_waveform(samples, sample_rate)
print(stream.finish().text)
```

Loading runs no code but that of registered components: the weights are safetensors, the rest is JSON and text.
"""


def export(system: System, path: Path, metadata: Mapping[str, Any], half: bool = True) -> None:
    """Write ``system`` as a bundle into the folder ``path``, which appears whole; a bundle that was there is replaced.

    Args:
        system: a registered system with its weights.
        path: the folder.
        metadata: lines of the model card; ``training_data`` and ``license`` are asked for.
        half: store parameters in half precision.

    Raises InputError for missing metadata, a part that is not a registered component, an argument that a bundle cannot
    hold, weights that are not finite, or a folder that is there and is no bundle.
    """
    path = Path(path)
    for key in ("training_data", "license"):
        if not metadata.get(key):
            raise InputError(f"metadata has no '{key}': name it, it is part of the model card")
    if path.exists() and not (path / DESCRIPTION).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there and is no bundle: choose another folder")
    assert isinstance(system, torch.nn.Module)
    with atomic_folder(path, replace=True) as folder:
        description = {
            "format": FORMAT,
            "reallm": __version__,
            "metadata": dict(metadata),
            "system": _Writer(folder).component(system, ""),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            save_file(_weights(system, half), folder / WEIGHTS)
        except SafetensorError as error:
            raise InputError(f"{path}: {WEIGHTS} cannot be written ({error}): free some space, or choose another folder") from error
        (folder / CARD).write_text(model_card(metadata, system), encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone


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
            kwargs[argument] = self.value(value, _join(place, argument))
            if isinstance(kwargs[argument], str) and _takes_path(cls, argument):
                raise self.fail(f"'{_join(place, argument)}' names the file {value!r} outside of the bundle: export it again")
        try:
            built = cls(**kwargs)
        except InputError as error:
            raise self.fail(f"{kind} '{name}': {error}") from None
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


def published(name: str = "digits") -> Path:
    """The folder of a bundle that comes with the package. Raises InputError when there is none of that name."""
    bundles = Path(__file__).parent / "bundles"
    known = sorted(folder.name for folder in bundles.glob("*") if (folder / DESCRIPTION).is_file())
    if name not in known:
        raise InputError(f"this installation has no bundle '{name}'{nearest(name, known)} in {bundles}: name a folder")
    return bundles / name


def load_shared(path: Path) -> System:
    """The system of a bundle, or of the ``bundle/`` in an experiment folder, in eval mode.

    Runs nothing but registered components, so that a folder which somebody else made is safe to open.

    Raises InputError for any other folder, and as :func:`load`.
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

    Raises InputError for any other folder, for a bundle whose checkpoints are to be averaged, and as :func:`load`.
    """
    path = Path(path)
    shared = any((folder / DESCRIPTION).is_file() for folder in (path, path / "bundle"))
    if (path / "config.yaml").is_file() and (average is not None or not shared):
        from reallm.training.experiment import load_trained

        return load_trained(path, average)
    if average is not None:
        raise InputError(f"{path} has no checkpoints to average {average} of: name an experiment, or leave the number out")
    return load_shared(path)
