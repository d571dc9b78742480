"""Tensors that are the same in every step of every stream."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_kept: dict[Hashable, Tensor] = {}


def constant(key: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` gives, which hangs on nothing but ``key``, and is never written into. It is made once, and kept for ever.

    So a key has few values: sizes of a model, and not lengths of utterances. What is traced is made anew, since it has no numbers.
    """
    if torch.compiler.is_compiling():
        return make()
    found = _kept.get(key)
    if found is None:
        with torch.inference_mode(False):  # what is made in inference cannot be used in training
            found = make()
        if type(found) is Tensor:
            _kept[key] = found
    return found
