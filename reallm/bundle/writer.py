"""A trained system to a bundle: constructor arguments to JSON, weights to safetensors."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from reallm import __version__
from reallm.bundle.layout import CARD, DESCRIPTION, FORMAT, WEIGHTS, join
from reallm.data.files import atomic_folder
from reallm.errors import InputError
from reallm.protocols import ChunkSpec, System
from reallm.registry import ComponentSpec, find, spec_of, takes_path


class _Writer:
    """Constructor arguments to JSON, files to the bundle's folder.

    A component that is built from a bundle with other arguments than it was trained with has a method ``bundle_kwargs``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: dict[int, str] = {}  # id of a component → its place

    def component(self, component: object, place: str) -> dict[str, Any]:
        if id(component) in self.written:
            return {"same_as": self.written[id(component)]}
        self.written[id(component)] = place
        spec = spec_of(component)
        given = component.bundle_kwargs() if hasattr(component, "bundle_kwargs") else spec.kwargs
        kwargs = {name: self.argument(value, join(place, name), spec) for name, value in given.items()}
        return {"kind": spec.kind, "name": spec.name, "kwargs": kwargs}

    def argument(self, value: Any, place: str, spec: ComponentSpec) -> Any:
        argument = place.rpartition(".")[2]
        if isinstance(value, Path) or (isinstance(value, str) and takes_path(find(spec.kind, spec.name), argument)):
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


def _weights(system: torch.nn.Module, half: bool) -> dict[str, torch.Tensor]:
    """Parameters in half precision, buffers (statistics) as they are."""
    if any(getattr(part, "inference_only", False) for part in system.modules()):
        raise InputError("a system with int8 weights or compiled layers is not what a bundle holds: export it before it is changed so")
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
from reallm.streaming.offline import recognizer_for

stream = recognizer_for(load("DIR")).stream()
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
    hold, layers that were made for inference alone, weights that are not finite, or a folder that is there and is no bundle.
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
