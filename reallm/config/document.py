"""One YAML file as a tree of tagged nodes, as its author wrote it: nothing resolved, nothing built."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml.core import recursive_resolve
from ruamel.yaml import YAML
from ruamel.yaml.comments import Comment, CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from reallm.errors import InputError, nearest

REFERENCE = re.compile(r"<([^>]*)>")
PLACEHOLDER = "PLACEHOLDER"  # stands in a checked tree for a value that is not known yet
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a configuration, and where."""

    file: Path
    key: str  # dotted; empty = the file as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"


class ConfigError(InputError):
    """A file that cannot be read as YAML."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def find_file(name: Path) -> Path:
    """The file of that name, else the one that comes with the toolkit (``hparams/…``, ``egs/…``).

    Raises InputError with the nearest name.
    """
    name = Path(name)
    if name.is_file():
        return name
    if name.is_dir():
        raise InputError(f"{name}: a folder: name a file in it")
    if not name.is_absolute() and name.parts and name.parts[0] in ("hparams", "egs"):
        from reallm import resources

        return resources.path(str(name))
    raise InputError(f"{name}: no such file{nearest_file(name)}")


def nearest_file(name: Path) -> str:
    """ " (did you mean …?)" for the YAML file in the same folder whose name is nearest."""
    return nearest(name.name, [path.name for path in name.parent.glob("*.yaml")] if name.parent.is_dir() else [])


def read(file: Path) -> Any:
    """The tree of a file. Raises ConfigError for what is not YAML, for duplicated keys, and for an empty file."""
    try:
        text = file.read_text(encoding="utf-8")
        for number, key in _duplicates(YAML().compose(text)):
            raise ConfigError(Problem(file, "", f"line {number}: key '{key}' is there twice"))
        tree = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        first = str(error.problem or error.context).strip().splitlines()[0]
        raise ConfigError(Problem(file, "", f"{line}{first}")) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(Problem(file, "", f"not YAML: {str(error).splitlines()[0]}")) from None
    if tree is None:
        raise ConfigError(Problem(file, "", "is empty"))
    return tree


def _duplicates(node: Any) -> Iterator[tuple[int, str]]:
    """(line, key) of keys that a mapping holds already; ruamel itself misses those under a tag."""
    if isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield key.start_mark.line + 1, str(key.value)
            seen.add(str(key.value))
            yield from _duplicates(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _duplicates(value)


def tag_of(node: Any) -> str:
    """The node's tag, such as ``!new:reallm.x.Y`` or ``!ref``; empty = none."""
    return str(node.tag.value or "") if hasattr(node, "tag") else ""


def walk(node: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Every node with its path, parents first; a node that is shared comes once."""
    seen: set[int] = set()

    def visit(node: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
        if isinstance(node, dict | list):
            if id(node) in seen:
                return
            seen.add(id(node))
        yield steps, node
        if isinstance(node, dict):
            for key, value in node.items():
                yield from visit(value, (*steps, str(key)))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from visit(value, (*steps, str(index)))

    yield from visit(node, steps)


def nest(steps: Steps, value: Any) -> dict[str, Any]:
    """``{a: {b: value}}`` for the path (a, b)."""
    for step in reversed(steps):
        value = {step: value}
    return value


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Set the keys of ``other``: those of plain mappings one by one, what has a tag as a whole."""
    for key, value in other.items():
        if isinstance(value, dict) and not tag_of(value) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def resolve(file: Path, overrides: dict[str, Any]) -> str:
    """The file as YAML without references and inclusions. What is referred to twice stays one object, in inclusions too.

    HyperPyYAML's own ``resolve_references`` writes every included file as text and reads it again, which copies what is
    shared, and which ruamel does wrongly for tagged nodes in lists.

    Raises ConfigError for references and placeholders that cannot be resolved.
    """
    try:
        tree = _resolved_file(file, overrides)
    except ValueError as error:
        raise ConfigError(Problem(file, "", " ".join(str(part) for part in error.args))) from None
    text = StringIO()
    YAML().dump(tree, text)
    return text.getvalue()


def _resolved_file(file: Path, overrides: dict[str, Any]) -> Any:
    tree = read(file)
    if overrides:
        merge(tree, overrides)
    tree = _resolved(tree, (), tree, file)
    for _, node in walk(tree):
        if isinstance(node, CommentedMap | CommentedSeq):
            # ruamel cannot read back everything that it writes of tagged nodes in [ ] or near comments.
            node.fa.set_block_style()
            if hasattr(node, Comment.attrib):
                delattr(node, Comment.attrib)
    return tree


def _resolved(node: Any, steps: Steps, tree: Any, file: Path) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _resolved(value, (*steps, str(key)), tree, file)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            node[index] = _resolved(value, (*steps, str(index)), tree, file)
    tag = tag_of(node)
    if tag == "!PLACEHOLDER":
        raise ValueError(f"'{'.'.join(steps)}' is a !PLACEHOLDER and must be replaced")
    if tag in ("!ref", "!copy"):
        return recursive_resolve(node.value, [], tree, tag == "!copy")
    if tag.startswith("!include:"):
        included = file.resolve().parent / tag.removeprefix("!include:")
        return _resolved_file(included, dict(node) if isinstance(node, dict) else {})
    return node


def parse_overrides(overrides: Sequence[str], tree: Any, file: Path) -> dict[str, Any]:
    """``key=value`` (or ``a.b=value``) of the command line, values in YAML, as a nested dictionary.

    Raises InputError for what has another form, and for a key that the file does not have, with the nearest one.
    """
    merged: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override '{override}' is not of the form key=value")
        try:
            value = YAML().load(text) if text else ""
        except YAMLError:
            raise InputError(f"override '{override}': '{text}' is not a YAML value") from None
        steps = tuple(key.split("."))
        node, parent = tree, merged
        for depth, step in enumerate(steps):
            if not isinstance(node, CommentedMap) or step not in node:
                known = node if isinstance(node, CommentedMap) else ()
                raise InputError(f"override '{override}': {file} has no key '{'.'.join(steps[: depth + 1])}'{nearest(step, known)}")
            node = node[step]
            if depth < len(steps) - 1:
                parent = parent.setdefault(step, {})
        parent[steps[-1]] = value
    return merged
