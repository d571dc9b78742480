"""What a configuration describes, built to be judged: components check their values, and how they fit, in their constructors.

Nothing is read and next to nothing allocated: weights are on torch's meta device, which has shapes only, and a tokenizer, whose
file need not be there yet, has a stand-in. Built are registered components and dataclasses (settings hold values, and check them),
but those that read files; what cannot be built so is left out, and what needs it too.
"""

import dataclasses
import functools
import inspect
import pydoc
import sys
import warnings
from contextlib import nullcontext
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


def refusal(error: Exception) -> str | None:
    """What a constructor says of its arguments by an exception; None where that is no such exception."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, ZeroDivisionError):
        return f"a size or stride is 0 ({error}): at least 1"
    if isinstance(error, RuntimeError) and "negative dimension" in str(error):  # what torch says of a size below 0
        return f"a size is negative ({error})"
    return None


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
        except Exception as error:  # what cannot be built without weights or files is not judged
            message = refusal(error)
            if message is not None:
                self.problems.append((steps, message.removeprefix(f"{'.'.join(steps[-1:])}: ")))
            return UNKNOWN


def _without_memory() -> Any:
    """A context in which tensors are made on the meta device, but those of modules that are imported meanwhile: these stay."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Meta(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            frame = sys._getframe()
            while frame.f_back is not None and frame.f_code is not Trial._call.__code__:
                if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                    return func(*args, **(kwargs or {}))
                frame = frame.f_back
            with torch.device("meta"):
                return func(*args, **(kwargs or {}))

    return Meta()


def _can_be_built(cls: type) -> bool:
    if "component_kind" not in vars(cls) and not dataclasses.is_dataclass(cls):
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
