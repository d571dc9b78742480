"""How a check says what is wrong."""

import torch
from torch import Tensor


class ContractError(AssertionError):
    """A component breaks its contract; the message says which part, where and by how much."""


def require(condition: object, message: str) -> None:
    """Raise ContractError with ``message`` unless ``condition``; unlike assert, it stays under ``python -O``."""
    if not condition:
        raise ContractError(message)


def require_equal(got: Tensor, expected: Tensor, what: str, tolerance: float = 0.0) -> None:
    """Same shape, and no element further apart than ``tolerance`` (0: bit-equal)."""
    require(got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    if tolerance == 0.0:
        require(torch.equal(got, expected), f"{what}: not bit-equal")
    elif got.numel():
        worst = float((got.detach().double() - expected.detach().double()).abs().max())
        require(worst <= tolerance, f"{what}: differs by {worst:.3g}, more than {tolerance:g}")
