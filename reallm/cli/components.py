"""``reallm components``: what there is to build systems of."""

from typing import Annotated, Any

import typer


def describe(kind: str) -> list[dict[str, Any]]:
    """The components of a kind: each with ``kind``, ``name``, ``summary`` and ``parameters``.

    A parameter has ``name``, ``type``, ``required`` and ``default``, which is None where it is required.

    Raises InputError for an unknown kind.
    """
    import inspect

    from reallm.registry import catalogue

    def parameter(p: inspect.Parameter) -> dict[str, Any]:
        required = p.default is inspect.Parameter.empty
        annotation = "" if p.annotation is inspect.Parameter.empty else inspect.formatannotation(p.annotation)
        plain = required or p.default is None or isinstance(p.default, bool | int | float | str | list | dict)
        return {
            "name": p.name,
            "type": annotation,
            "required": required,
            "default": None if required else (p.default if plain else str(p.default)),
        }

    return [
        {
            "kind": kind,
            "name": name,
            "summary": (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "),
            "parameters": [parameter(p) for p in inspect.signature(cls).parameters.values()],
        }
        for name, cls in catalogue(kind).items()
    ]


def components(
    kind: Annotated[str | None, typer.Argument(help="Only components of this kind: frontend, encoder, adapter, …")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects: kind, name, summary, parameters.")] = False,
) -> None:
    """List the registered components, those of installed plugins included, with their parameters and defaults."""
    import json
    import sys

    from reallm.registry import KINDS, broken_plugins

    found = [component for each in ([kind] if kind is not None else KINDS) for component in describe(each)]
    for line in broken_plugins():
        print(f"reallm: warning: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("kind", "name", "what it is", "parameters", show_lines=True)
    for component in found:
        parameters = [f"{p['name']}" if p["required"] else f"{p['name']} = {p['default']}" for p in component["parameters"]]
        table.add_row(component["kind"], component["name"], escape(component["summary"]), escape("\n".join(parameters)))
    Console().print(table)
