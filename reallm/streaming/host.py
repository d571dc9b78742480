"""What the host may look at while a step runs.

A number that is read from an accelerator makes the host wait for all that it has asked for, and a step that is captured, compiled or
exported has one way for all numbers. On a processor a look costs nothing, and may save work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from reallm.errors import InputError

_nobody_ends: ContextVar[bool] = ContextVar("nobody_ends", default=False)


def may_look(tensor: Tensor) -> bool:
    """Whether the host may look at a tensor's numbers."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


@contextmanager
def nobody_ends() -> Iterator[None]:
    """Inside, who steps a system knows that no row is final, so that nothing need be flushed: see ``may_end``."""
    token = _nobody_ends.set(True)
    try:
        yield
    finally:
        _nobody_ends.reset(token)


def may_end(final: Tensor) -> bool:
    """Whether there may be a ``final`` (B,) row in the step, for which work has to be done that the others have no use for."""
    if torch.compiler.is_compiling():
        return True
    return bool(final.any()) if may_look(final) else not _nobody_ends.get()


def require_all(right: Tensor, message: str) -> None:
    """``right`` (…) bool is true everywhere.

    Raises InputError with ``message`` where the host may look. An accelerator is not waited for: it stops at a failed assertion.
    """
    if may_look(right):
        if not bool(right.all()):
            raise InputError(message)
    elif not torch.compiler.is_compiling():
        torch._assert_async(right.all(), message)
