"""What lies where in a bundle's folder: known to the writer and the reader.

::

    bundle.json          {"format": 1, "metadata": {…}, "system": {"kind", "name", "kwargs"}}, components nested in kwargs
    model.safetensors    the weights, half precision
    README.md            the model card
    <component>.<argument>…   files that components were built from, such as the tokenizer's

Values that JSON does not have are written as objects of one key: ``{"asset": file}``, ``{"tuple": […]}``,
``{"mapping": {…}}``, ``{"chunk": {…}}``, ``{"same_as": "encoder"}`` for a component that stands in two places.
"""

import inspect
import types
import typing
from pathlib import Path
from typing import Any

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"


def takes_path(cls: type, argument: str) -> bool:
    """Whether the constructor's argument is annotated as a path, alone or in a union."""
    construct: Any = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    try:
        annotation = typing.get_type_hints(construct).get(argument)
    except NameError:
        annotation = construct.__annotations__.get(argument)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) else (annotation,)
    return any(option is Path or option == "Path" for option in options)


def join(place: str, name: str) -> str:
    """The place of a component's argument; the system itself is at ""."""
    return f"{place}.{name}" if place else name
