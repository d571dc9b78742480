"""What hears audio computes in float32 at least, whatever the type of the model: a power spectrum needs its range, audio its precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def audio_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the audio, the features and their streaming state, for a model of ``dtype``."""
    return torch.promote_types(dtype, torch.float32)


def parameter_dtype(module: Any) -> torch.dtype | None:
    """The type of a module's floating-point parameters, that is, of the first one; None where it has none."""
    parameters = module.parameters() if isinstance(module, nn.Module) else iter(())
    return next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), None)


def keeping_float32(convert: Callable[[Tensor], Tensor], *modules: Any) -> Callable[[Tensor], Tensor]:
    """``convert``, of nn.Module._apply, that takes what is in ``modules`` to another device, or to float64, but never below float32."""
    kept = [tensor for module in modules if isinstance(module, nn.Module) for tensor in _tensors(module)]
    own = {id(tensor) for tensor in kept}

    def converted(tensor: Tensor) -> Tensor:
        after = convert(tensor)
        if id(tensor) in own and after.dtype in (torch.bfloat16, torch.float16):
            return tensor.to(after.device, torch.float32)
        return after

    return converted


def _tensors(module: nn.Module) -> list[Tensor]:
    parameters = list(module.parameters())
    return [*parameters, *(p.grad for p in parameters if p.grad is not None), *module.buffers()]
