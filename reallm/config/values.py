"""Values of a configuration against the annotations of the arguments that they are for."""

import inspect
import pydoc
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.scalarbool import ScalarBoolean

from reallm.config.document import PLACEHOLDER, tag_of
from reallm.errors import nearest
from reallm.registry import KINDS

SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path", types.NoneType: "null"}


def check_values(function: Callable[..., Any], given: list[Any], keywords: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(argument, what is wrong) for each value of a call whose annotation rules it out; of what carries a tag, a component's kind."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(function.__init__) if inspect.isclass(function) else function)
        arguments = inspect.signature(function).bind_partial(*given, **keywords).arguments
    except (NameError, TypeError, ValueError, AttributeError):
        return  # an annotation of what is imported for type checkers alone, or no signature
    for name, value in arguments.items():
        annotation = hints.get(name)
        if name in hints and not _fits(value, annotation):
            yield name, f"{_shown(value)} is not {_described(annotation)}{_fix(value, annotation)}"
        given_kind, wanted = _kind_of_component(value), _kind_of_protocol(annotation)
        if given_kind and wanted and given_kind != wanted:
            target = tag_of(value).partition(":")[2]
            yield name, f"{target} is of the kind {given_kind}, not {wanted}: `reallm components {wanted}` lists those"


def _kind_of_component(value: Any) -> str | None:
    """The kind under which the class that a value is built of is registered."""
    tag, _, target = tag_of(value).partition(":")
    found: Any = pydoc.locate(target) if tag == "!new" else None
    kind: str | None = vars(found).get("component_kind") if inspect.isclass(found) else None
    return kind


def _kind_of_protocol(annotation: Any) -> str | None:
    """The kind whose protocol (reallm.protocols) an annotation is, or allows beside None."""
    kinds = {option.__name__.lower() for option in _options(annotation) if getattr(option, "__module__", "") == "reallm.protocols"}
    return kinds.pop() if len(kinds) == 1 and kinds <= KINDS.keys() else None


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value may be what an annotation says; true wherever that is not known."""
    if tag_of(value) or (isinstance(value, str) and PLACEHOLDER in value):
        return True
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if len(_options(annotation)) > 1:
        return any(_fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if annotation in NAMES:
        if isinstance(value, bool | ScalarBoolean):
            return annotation is bool
        types_read: dict[Any, Any] = {float: (int, float), Path: str}
        return isinstance(value, types_read.get(annotation, annotation))
    if _is_built(annotation):
        return False
    container = origin or annotation
    if not inspect.isclass(container):
        return True
    if issubclass(container, Mapping):
        return isinstance(value, dict) and (not inner or all(_fits(item, inner[-1]) for item in value.values()))
    if issubclass(container, tuple) and inner and inner[-1] is not ...:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if issubclass(container, Collection):
        return isinstance(value, list) and (not inner or all(_fits(item, inner[0]) for item in value))
    return True


def _is_built(annotation: Any) -> bool:
    """Whether no plain value can be of this type."""
    return inspect.isclass(annotation) and annotation.__module__.partition(".")[0] in ("reallm", "torch")


def _options(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else (annotation,)


def _described(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in NAMES:
        return NAMES[annotation]
    if len(_options(annotation)) > 1:
        some = [option for option in inner if option is not types.NoneType]
        return " or ".join(map(_described, [option for option in some if not _is_built(option)] or some))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if _is_built(annotation):
        return f"of the type {annotation.__name__} (write !new: or !include:)"
    container = origin or annotation
    if inspect.isclass(container) and issubclass(container, Mapping):
        return "a mapping" + (f" whose values are each {_described(inner[-1])}" if inner else "")
    if inspect.isclass(container) and issubclass(container, Collection):
        count = f"of {len(inner)} " if issubclass(container, tuple) and ... not in inner and inner else ""
        return f"a list {count}".rstrip() + (f", each {_described(inner[0])}" if inner else "")
    return str(getattr(annotation, "__name__", annotation))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {item}' for key, item in value.items())}}}"
    return str(value)


def _fix(value: Any, annotation: Any) -> str:
    options = _options(annotation)
    if isinstance(value, str):
        if bool in options and value.lower() in SWITCHES:
            return f": write {SWITCHES[value.lower()]}"
        for number in (int, float):
            if number in options or (number is int and float in options):
                try:
                    return f": write {number(value)}, without quotes"
                except ValueError:
                    pass
        known = [name for option in options if typing.get_origin(option) is typing.Literal for name in typing.get_args(option)]
        return nearest(value, map(str, known))
    if isinstance(value, float) and int in options and value.is_integer():
        return f": write {int(value)}"
    if isinstance(value, int | float) and any(_fits([value], option) for option in options):
        return f": write [{value}]"
    return ""
