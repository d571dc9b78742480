"""Options that make a system faster on a processor."""

from typing import Annotated, Any

import typer

Int8 = Annotated[bool, typer.Option("--int8", help="Linear layers of int8, for the CPU: fewer bytes to read, a little less exact.")]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compiled", help="Layers compiled for this CPU by its C++ compiler: the same words in less time. May be had together with --int8."
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        min=1,
        help="Of torch. On a machine that does other things too, more make a small model wait; a large one may gain, without --compiled.",
    ),
]


def use_cpu_layers(system: Any, int8: bool, compiled: bool) -> dict[str, bool]:
    """Exchange the layers of ``system``, as the options say; returns what was chosen.

    Raises InputError as ``with_int8_weights`` and ``with_compiled_layers``.
    """
    if int8:
        from reallm.layers.int8_linear import with_int8_weights

        with_int8_weights(system)
    if compiled:
        from reallm.streaming.compiled.system import with_compiled_layers

        with_compiled_layers(system)
    return {name: True for name, chosen in (("int8", int8), ("compiled", compiled)) if chosen}
