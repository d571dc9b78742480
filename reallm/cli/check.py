"""``reallm check``: does a component keep its contract?"""

from typing import Annotated

import typer


def check(
    name: Annotated[str, typer.Argument(help="The component's name, as in 'reallm components'.")],
    kind: Annotated[str | None, typer.Option(help="Its kind, where components of several kinds have this name.")] = None,
) -> None:
    """Run the contract checks on one component, an installed plugin's too. Exit code 1 if one fails."""
    import traceback

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from reallm.contract import ContractError, checks, summary
    from reallm.errors import InputError, nearest
    from reallm.registry import KINDS, catalogue, find, unknown

    if kind is None:
        kinds = [each for each in KINDS if name in catalogue(each)]
        if not kinds:
            known = sorted({other for each in KINDS for other in catalogue(each)})
            raise unknown(f"component '{name}'{nearest(name, known)}: see 'reallm components'")
        if len(kinds) > 1:
            raise InputError(f"'{name}' is the name of components of the kinds {', '.join(kinds)}: choose one with --kind")
        kind = kinds[0]
    cls = find(kind, name)
    table = Table("check", "result", title=f"{kind} '{name}' ({cls.__module__}.{cls.__qualname__})")
    failures, traces = 0, []
    for one in checks(kind):
        try:
            one(cls)
            result = "[green]kept"
        except ContractError as error:
            failures, result = failures + 1, f"[red]broken[/]: {escape(str(error))}"
        except Exception as error:  # the component's own mistake is what the author came to see
            failures, result = failures + 1, f"[red]{type(error).__name__}[/]: {escape(str(error))}"
            traces.append(traceback.format_exc())
        table.add_row(escape(summary(one)), result)
    console = Console()
    console.print(table)
    for trace in traces:
        console.print(trace, markup=False, highlight=False)
    if failures:
        raise typer.Exit(1)
