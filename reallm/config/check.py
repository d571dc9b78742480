"""Finds what is wrong with a configuration before it is built.

HyperPyYAML is silent about a top-level key that nothing uses, and about a wrong keyword under ``!name:`` until it is
called; and what it does say, it says in the middle of building. Here everything is compared with signatures first,
values with annotations, and what is left is built without weights or files.
"""

import inspect
import pydoc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from reallm.config.document import (
    PLACEHOLDER,
    REFERENCE,
    ConfigError,
    Problem,
    Steps,
    find_file,
    merge,
    nearest_file,
    nest,
    read,
    resolve,
    tag_of,
    walk,
)
from reallm.config.trial import Trial
from reallm.config.values import check_values
from reallm.errors import nearest, nearest_name
from reallm.registry import KINDS, catalogue

TRAINING_KEYS = {
    "system": "what is trained (reallm.protocols.System)",
    "training": "reallm.training.settings.TrainingSettings",
    "data": "the batches (reallm.training.batches.TrainingSource)",
    "train": "path of the training manifest (--train)",
    "dev": "path of the manifest that is decoded for validation (--dev)",
}


def check(file: Path, overrides: dict[str, Any] | None = None) -> list[Problem]:
    """All problems of a configuration, or of a part of one that others include.

    Looked for: what is not YAML; duplicated keys; inclusions of files that are not there; references to keys that are
    not there; top-level keys that nothing uses; classes and functions that are not there; keywords that they do not
    take, or lack; values of a wrong type; and where there is none of these, values that components and settings refuse, and
    components that do not fit each other. Modules that are named are imported; of what is in them, trial.py says what is called.
    A placeholder is no problem.

    Raises InputError when there is no such file.
    """
    file = find_file(file)
    problems, placeholders = _written(file, file, "", ())
    if problems:
        return problems
    merged: dict[str, Any] = {}
    for steps in placeholders:
        merge(merged, nest(steps, PLACEHOLDER))
    merge(merged, overrides or {})
    problems = _unused(file)
    try:
        tree = YAML().load(resolve(file, merged))
    except ConfigError as error:
        return [*problems, error.problem]
    problems += [Problem(file, ".".join(steps), message) for steps, node in walk(tree) for message in _built(node)]
    if problems:
        return problems
    written = read(file)
    judged = [((*steps, name), message) for steps, node in walk(tree) for name, message in _values(node)]
    if not judged:
        trial = Trial()
        trial.build(tree)
        judged = trial.problems
    return [Problem(file, _key(written, steps), message) for steps, message in judged]


def _written(file: Path, top: Path, at: str, including: tuple[Path, ...]) -> tuple[list[Problem], list[tuple[str, ...]]]:
    """Problems of a file as it is written, those of the files that it includes too; and where its placeholders are."""
    try:
        tree = read(file)
    except ConfigError as error:
        return [error.problem], []
    problems: list[Problem] = []
    placeholders: list[tuple[str, ...]] = []
    for steps, node in walk(tree):
        key = ".".join((*((at,) if at else ()), *steps))
        tag = tag_of(node)
        if tag in ("!ref", "!copy"):
            for reference in REFERENCE.findall(node.value):
                problems += [Problem(top, key, message) for message in _reference(reference, tree)]
        elif tag == "!PLACEHOLDER":
            placeholders.append(steps)
        elif tag.startswith("!applyref:"):
            problems.append(Problem(top, key, f"{tag} runs while the file is read: use !apply:"))
        elif tag.startswith("!include:"):
            included = file.resolve().parent / tag.removeprefix("!include:")
            if not included.is_file():
                problems.append(Problem(top, key, f"includes {included}, which is not there{nearest_file(included)}"))
            elif included.resolve() in including:
                problems.append(Problem(top, key, f"includes {included}, which includes this file"))
            else:
                problems += _written(included, top, key, (*including, file.resolve()))[0]
    return problems, placeholders


def _unused(file: Path) -> list[Problem]:
    """Top-level keys that no reference names and training does not read, or their absence. A file with a tag on top has arguments there."""
    tree = read(file)
    if tag_of(tree) or isinstance(tree, list):  # a part of a configuration
        return []
    if not isinstance(tree, CommentedMap):
        return [Problem(file, "", "holds no keys: a configuration is a mapping, such as `seed: 1`, or begins with a tag")]
    scalars = [node.value for _, node in walk(tree) if tag_of(node) in ("!ref", "!copy")]
    known = {*TRAINING_KEYS, *(re.split(r"[.\[]", reference)[0] for value in scalars for reference in REFERENCE.findall(value))}
    return [Problem(file, str(key), f"nothing uses this key{nearest(str(key), known)}") for key in tree if key not in known]


def _reference(reference: str, tree: Any) -> Iterator[str]:
    node = tree
    for part in reference.split(".")[0].split("["):
        name = part.rstrip("]")
        if not isinstance(node, dict):
            return  # a sequence, or something that is included
        if name not in node:
            if not tag_of(node).startswith("!include:"):
                yield f"<{reference}> refers to '{name}', which is not there{nearest(name, node)}"
            return
        node = node[name]


def _built(node: Any) -> Iterator[str]:
    """Problems of one node of a resolved tree."""
    kind, _, target = tag_of(node).partition(":")
    if kind == "!include":
        yield f"refers to an inclusion of {target} further down: move that above"
    if kind not in ("!new", "!name", "!apply"):
        return
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        yield f"{target} cannot be imported: {error}"
        return
    if found is None:
        yield f"unknown {'class' if kind == '!new' else 'class or function'} {target}{_nearest_path(target)}"
    elif kind == "!new" and not inspect.isclass(found):
        yield f"{target} is not a class: use !apply: to call a function, !name: to pass it on"
    elif not callable(found):
        yield f"{target} is not a class or function"
    elif kind == "!apply" and not inspect.isroutine(found):
        yield f"{target} is a class: use !new:"
    else:
        given = list(node) if isinstance(node, list) else []
        keywords = dict(node) if isinstance(node, dict) else {}
        yield from _call(found, target, given, keywords, partial=kind == "!name")


def _values(node: Any) -> Iterator[tuple[str, str]]:
    """(argument, what is wrong) for the plain values of a node that is called."""
    kind, _, target = tag_of(node).partition(":")
    if kind in ("!new", "!name", "!apply"):
        found: Any = pydoc.locate(target)
        yield from check_values(found, list(node) if isinstance(node, list) else [], dict(node) if isinstance(node, dict) else {})


def _key(written: Any, steps: Steps) -> str:
    """Where the author of a file wrote a value: the key that is referred to, where it is a reference."""
    node = written
    for step in steps:
        node = node.get(step) if isinstance(node, dict) else None
    reference = REFERENCE.fullmatch(node.value) if tag_of(node) == "!ref" else None
    return reference[1] if reference else ".".join(steps)


def _call(function: Callable[..., Any], target: str, given: list[Any], keywords: dict[str, Any], partial: bool) -> Iterator[str]:
    """Problems of a call (or, ``partial``, of arguments that a later call adds to)."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return  # written in C, without a signature
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [] if any(p.kind == p.VAR_KEYWORD for p in parameters) else [key for key in keywords if key not in names]
    for key in unknown:
        yield f"{target} takes no '{key}'{nearest(str(key), names)}: it takes {', '.join(names) or 'nothing'}"
    if unknown:
        return
    try:
        signature.bind_partial(*given, **keywords)
        if not partial:
            signature.bind(*given, **keywords)
    except TypeError as error:
        yield f"{target}: {error}"


def _nearest_path(target: str) -> str:
    module, _, name = target.rpartition(".")
    try:
        present = pydoc.locate(module) if module else None
    except pydoc.ErrorDuringImport:
        present = None
    if present is not None:
        found = nearest(name, [known for known in dir(present) if not known.startswith("_")])
        if found:
            return found
    paths = [f"{cls.__module__}.{cls.__qualname__}" for kind in KINDS for cls in catalogue(kind).values()]
    by_name = {path.rpartition(".")[2]: path for path in paths}
    known = nearest_name(name, by_name)
    return nearest(target, paths) if known is None else nearest(by_name[known], paths)
