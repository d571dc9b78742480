"""What a configuration describes, built to be judged: components check their values, and how they fit, in their constructors.

Nothing is read and next to nothing allocated: weights are on torch's meta device, which has shapes only, and a tokenizer, whose
file need not be there yet, has a stand-in. Built are registered components and the dataclasses of reallm (settings hold values, and
check them), but those that take a path; what cannot be built so is left out, and what needs it too.
"""

import dataclasses
import functools
import inspect
import pydoc
import warnings
from contextlib import nullcontext, suppress
from typing import Any

from reallm.config.document import PLACEHOLDER, Steps, tag_of
from reallm.errors import InputError
from reallm.registry import takes_path


class _Unknown:
    """What was not built."""


UNKNOWN = _Unknown()


class VocabularySize(int):
    """V, the size of a vocabulary that is not there yet, and what is counted from it: it may be any number that a file says."""

    ASSUMED = 1000

    def __str__(self) -> str:
        return "V" if int(self) == self.ASSUMED else f"V{int(self) - self.ASSUMED:+d}"

    def __format__(self, spec: str) -> str:
        return str(self)

    def __add__(self, other: int) -> "VocabularySize":
        return VocabularySize(int(self) + other)

    def __sub__(self, other: int) -> "VocabularySize":
        return VocabularySize(int(self) - other)

    __radd__ = __add__
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return int(self) == int(other) if isinstance(other, VocabularySize) else isinstance(other, int)

    def __ne__(self, other: object) -> bool:
        return not self == other


class _Tokenizer:
    """Stands for a tokenizer."""

    vocab_size = VocabularySize(VocabularySize.ASSUMED)
    fingerprint = PLACEHOLDER
    special_ids: dict[str, int] = {}


class Trial:
    """Builds the nodes of one resolved tree; what is shared is built once."""

    def __init__(self) -> None:
        self.problems: list[tuple[Steps, str]] = []
        self._built: dict[int, Any] = {}

    def build(self, node: Any, steps: Steps = ()) -> Any:
        """The value of a node, or UNKNOWN; what constructors refuse is in ``problems``."""
        if id(node) not in self._built:
            self._built[id(node)] = self._build(node, steps)
        return self._built[id(node)]

    def _build(self, node: Any, steps: Steps) -> Any:
        given: list[Any] = []
        keywords: dict[str, Any] = {}
        if isinstance(node, dict):
            keywords = {str(key): self.build(value, (*steps, str(key))) for key, value in node.items()}
        elif isinstance(node, list):
            given = [self.build(value, (*steps, str(index))) for index, value in enumerate(node)]
        elif isinstance(node, str) and PLACEHOLDER in node:
            return UNKNOWN
        kind, _, target = tag_of(node).partition(":")
        found: Any = pydoc.locate(target) if kind in ("!new", "!name", "!apply") else None
        if kind == "!new" and vars(found).get("component_kind") == "tokenizer":
            return _Tokenizer()
        if any(value is UNKNOWN for value in (*given, *keywords.values())):
            return UNKNOWN
        if not kind:
            return keywords if isinstance(node, dict) else given if isinstance(node, list) else node
        if kind == "!name":
            made = functools.partial(found, *given, **keywords)
            return UNKNOWN if _is_optimizer(found) and self._call(_try_optimizer, [made], {}, steps) is UNKNOWN else made
        if kind == "!new" and _can_be_built(found):
            return self._call(found, given, keywords, steps)
        if kind == "!apply" and (target == "getattr" or target.startswith("operator.")):
            return self._call(found, given, keywords, steps)
        return UNKNOWN

    def _call(self, function: Any, given: list[Any], keywords: dict[str, Any], steps: Steps) -> Any:
        # A frontend computes with its tables when it is built, and they are small.
        place: Any = nullcontext() if getattr(function, "component_kind", "") == "frontend" else _without_memory()
        try:
            with place, warnings.catch_warnings(action="ignore"):
                return function(*given, **keywords)
        except ValueError as error:
            self.problems.append((steps, str(error).removeprefix(f"{'.'.join(steps[-1:])}: ")))
        except Exception:  # what cannot be built without weights or files is not judged
            pass
        return UNKNOWN


def _without_memory() -> Any:
    """A context in which tensors are made on the meta device."""
    import torch

    with suppress(ImportError):
        import torchaudio  # noqa: F401  a constructor's first import of it would make its constant without a value

    return torch.device("meta")


def _can_be_built(cls: type) -> bool:
    settings = dataclasses.is_dataclass(cls) and cls.__module__.partition(".")[0] == "reallm"
    if not settings and "component_kind" not in vars(cls):
        return False
    return not any(takes_path(cls, name) for name in inspect.signature(cls).parameters)


def _is_optimizer(found: Any) -> bool:
    import torch

    return inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)


def _try_optimizer(optimizer: Any) -> Any:
    """An optimizer judges its settings when it gets a weight."""
    import torch

    try:
        return optimizer([torch.nn.Parameter(torch.empty(1))])
    except ValueError as error:
        raise InputError(f"{error}: give another value") from None
