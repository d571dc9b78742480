"""Registered components: found by their folder or by entry point, described to users, rebuilt from bundles.

A component is a class decorated with ``@register(kind, name)``. Those of this package are found because their file
lies in the folder of their kind; those of other packages because they name a module in the entry-point group
``reallm.plugins``. There is no central list.
"""

import functools
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from reallm.errors import InputError, nearest

KINDS = {
    "frontend": "reallm.frontends",
    "encoder": "reallm.encoders",
    "adapter": "reallm.adapters",
    "aligner": "reallm.aligners",
    "interleaver": "reallm.interleavers",
    "decoder": "reallm.decoders",
    "predictor": "reallm.predictors",
    "searcher": "reallm.searchers",
    "tokenizer": "reallm.tokenizers",
    "system": "reallm.systems",
}
ENTRY_POINT_GROUP = "reallm.plugins"

C = TypeVar("C", bound=type)
_components: dict[tuple[str, str], type[Any]] = {}


@dataclass(frozen=True)
class ComponentSpec:
    """How a component was built: enough to build it again."""

    kind: str
    name: str
    kwargs: dict[str, Any]  # values as given; components among them carry a spec of their own


def register(kind: str, name: str) -> Callable[[C], C]:
    """Class decorator: make a component known as ``name`` and record the arguments that each instance is built with.

    Raises InputError for an unknown kind, or a name that another class has taken.
    """
    if kind not in KINDS:
        raise InputError(f"unknown component kind '{kind}'{nearest(kind, KINDS)}: one of {', '.join(KINDS)}")

    def decorate(cls: C) -> C:
        taken = _components.get((kind, name))
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"{kind} '{name}' is already registered by {taken.__module__}.{taken.__qualname__}: choose another name")
        construct: Any = cls.__init__  # type: ignore[misc]
        signature = inspect.signature(construct)
        if construct is object.__init__:  # it claims to take anything, and takes nothing
            signature = inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)])

        @functools.wraps(construct)
        def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
            construct(self, *args, **kwargs)
            if type(self) is cls:
                bound = signature.bind(self, *args, **kwargs)
                given = dict(list(bound.arguments.items())[1:])
                object.__setattr__(self, "component_spec", ComponentSpec(kind, name, given))

        recorded.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = recorded  # type: ignore[misc]
        cls.component_kind = kind  # type: ignore[attr-defined]
        cls.component_name = name  # type: ignore[attr-defined]
        _components[kind, name] = cls
        return cls

    return decorate


def spec_of(component: object) -> ComponentSpec:
    """The spec of a registered component's instance. Raises InputError for anything else."""
    spec = getattr(component, "component_spec", None)
    if not isinstance(spec, ComponentSpec):
        raise InputError(f"{type(component).__qualname__} is not a registered component: decorate it with @register(kind, name)")
    return spec


def takes_path(cls: type, argument: str) -> bool:
    """Whether the constructor's argument is annotated as a path, alone or in a union."""
    construct: Any = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    try:
        annotation = typing.get_type_hints(construct).get(argument)
    except NameError:
        annotation = construct.__annotations__.get(argument)
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) else (annotation,)
    return any(option is Path or option == "Path" for option in options)


@functools.cache
def _discover(kind: str) -> None:
    package = importlib.import_module(KINDS[kind])
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


@functools.cache
def broken_plugins() -> tuple[str, ...]:
    """Load all plugins; one line for each that cannot be, with what it raised: its components are not in the catalogue."""
    broken = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:  # whatever another package's module raises must not take the rest along
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            look = f"python -c 'import {entry.module}' shows where"
            broken.append(f"plugin '{entry.name}' of {package} cannot be loaded ({reason}): mend it ({look}), or uninstall it")
    return tuple(broken)


def catalogue(kind: str) -> dict[str, type[Any]]:
    """All registered components of a kind by name, those of installed plugins included, but for :func:`broken_plugins`.

    Raises InputError for an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"unknown component kind '{kind}'{nearest(kind, KINDS)}: one of {', '.join(KINDS)}")
    _discover(kind)
    broken_plugins()
    return {name: cls for (k, name), cls in sorted(_components.items()) if k == kind}


def find(kind: str, name: str) -> type[Any]:
    """The component's class. Raises InputError that names the nearest known one, and the plugins that might have had it."""
    known = catalogue(kind)
    if name not in known:
        raise unknown(f"{kind} '{name}'{nearest(name, known)}: one of {', '.join(known)}")
    return known[name]


def unknown(what: str) -> InputError:
    """The error for a component that is not in the catalogue; a plugin that cannot be loaded might have had it."""
    return InputError("; ".join([f"unknown {what}", *broken_plugins()]))
