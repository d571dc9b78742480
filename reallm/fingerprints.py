"""What tells contents apart: equal for equal contents, wherever they lie."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def of_file(path: Path) -> str:
    """The sha256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_weights(weights: Mapping[str, Tensor]) -> str:
    """A sha256 over the names and values of a state dictionary."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else str(value.item()).encode())
    return digest.hexdigest()
