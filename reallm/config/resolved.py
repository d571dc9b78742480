"""A configuration whose references, inclusions and overrides are resolved: what is built, written down and read again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from reallm.config.check import check
from reallm.config.document import ConfigError, find_file, merge, parse_overrides, read, resolve, tag_of, walk
from reallm.data.files import atomic_write
from reallm.errors import InputError, nearest


@dataclass(frozen=True)
class Config:
    """A resolved configuration. Building runs what the file says, so it is for files that the user trusts."""

    file: Path
    text: str  # YAML without references

    @classmethod
    def read(cls, file: Path) -> Config:
        """One that was written by :meth:`dump`. Raises InputError when it is not there."""
        if not file.is_file():
            raise InputError(f"no configuration {file}: train first")
        return cls(file, file.read_text(encoding="utf-8"))

    def keys(self) -> list[str]:
        """The top-level keys."""
        return list(YAML().load(self.text))

    def value(self, *keys: str, default: Any = None) -> Any:
        """A value as it stands in the file, without building anything; ``default`` where it is not given."""
        node = YAML().load(self.text)
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                return default
            node = node[key]
        return node

    def build(self, *keys: str) -> dict[str, Any]:
        """The values of the named top-level keys (none named: of all), with their objects built; shared ones are built once.

        Raises InputError for a key that is not there, and for whatever a component refuses.
        """
        tree = YAML().load(self.text)
        for key in keys:
            if key not in tree:
                raise InputError(f"{self.file}: no key '{key}'{nearest(key, tree)}")
        text = StringIO()
        YAML().dump({key: tree[key] for key in keys} if keys else tree, text)
        try:
            built: dict[str, Any] = load_hyperpyyaml(text.getvalue())
        except FileNotFoundError as error:
            raise InputError(f"{self.file}: {error.filename}: no such file, make it first") from error
        except ValueError as error:
            raise InputError(f"{self.file}: {error}") from error
        except TypeError as error:
            # HyperPyYAML says so where a constructor's own call failed: a value of a wrong type, a wrong key in a plain mapping.
            if not str(next(iter(error.args), "")).startswith("Invalid argument to"):
                raise
            raise InputError(f"{self.file}: {': '.join(str(part) for part in error.args)}") from error
        return built

    def dump(self, path: Path) -> None:
        """Write it down, whole or not at all: ``load`` reads it again."""
        with atomic_write(path) as file:
            file.write(self.text)

    def difference(self, other: Config) -> str | None:
        """The first key whose value differs, with both values; None when all are equal."""
        mine, theirs = _leaves(self.text), _leaves(other.text)
        for key in [*mine, *theirs]:
            if mine.get(key) != theirs.get(key):
                return f"{key} is {mine.get(key, 'absent')}, not {theirs.get(key, 'absent')}"
        return None


def _leaves(text: str) -> dict[str, str]:
    found = {}
    for steps, node in walk(YAML().load(text)):
        if isinstance(node, dict | list):
            found[".".join((*steps, "(tag)"))] = tag_of(node)
        else:
            found[".".join(steps)] = f"{tag_of(node)} {getattr(node, 'value', node)}".strip()
    return found


def load(file: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override, check and resolve a configuration.

    Args:
        file: a path, or the name of a file that comes with the toolkit (``egs/digits/conf/ctc.yaml``).
        overrides: ``key=value`` each.

    Raises InputError with the first of the problems that :func:`reallm.config.check` finds, for an unknown override,
    and for a placeholder that is not replaced.
    """
    file = find_file(file)
    tree = read(file)
    replaced = parse_overrides(overrides, tree, file)
    problems = check(file, replaced)
    if problems:
        more = f" (and {len(problems) - 1} more: reallm config check {file})" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    try:
        return Config(file, resolve(file, replaced))
    except ConfigError as error:
        fix = ": give it with --override KEY=VALUE" if "!PLACEHOLDER" in str(error) else ""
        raise InputError(f"{error}{fix}") from None


def override_key(file: Path, overrides: Sequence[str], *keys: str) -> str | None:
    """What ``--override`` calls the value at ``keys`` of a configuration that :func:`load` has read with these ``overrides``.

    That is the top-level key which the value is taken from (``batch_seconds`` for ``data``, ``max_duration``), or its own path with
    dots where it stands there as it is; None where it is computed, or the file has no such key, as for values of an included file.
    """
    file = find_file(file)
    tree = read(file)
    merge(tree, parse_overrides(overrides, tree, file))
    while True:
        node = tree
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                return None
            node = node[key]
        if not tag_of(node):
            return ".".join(keys)
        # A computed value cannot be set in its own place either: what it is computed from would be a key that nothing uses.
        plain = re.fullmatch(r"\s*<(\w+)>\s*", node.value) if tag_of(node) == "!ref" else None
        if plain is None:
            return None
        keys = (plain[1],)
