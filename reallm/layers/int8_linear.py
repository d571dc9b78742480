"""Linear layers of integers, for processors: a quarter of the bytes to read, and integer products.

Weights have a scale for each output, activations one for each row (Dettmers et al. 2022, arXiv 2208.07339, section 2.1, "vector-wise
quantization"): what one stream computes does not depend on its neighbours, to the bit, since integers are summed exactly.
"""

from typing import Any

import torch
from torch import Tensor, nn

from reallm.errors import InputError

MOST = 127  # of int8, either sign


class Int8Linear(nn.Module):
    """(…, D_in) → (…, D_out) of the input's type, with int8 weights and inputs.

    Args:
        linear: whose weights are rounded.

    Raises InputError for weights on another device than the CPU: torch's integer product there wants other shapes.
    """

    inference_only = True

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.weight.device.type != "cpu":
            raise InputError(f"int8 weights on '{linear.weight.device}': they are for the CPU")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / MOST
        self.register_buffer("weight", (weight / scale.unsqueeze(1)).round().to(torch.int8))  # (D_out, D_in)
        self.register_buffer("scale", scale)  # (D_out,)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).float()
        most = rows.abs().amax(1, keepdim=True).clamp_(min=1e-12)  # of each row
        integers: Any = torch._int_mm((rows * (MOST / most)).round_().to(torch.int8), self.weight.t())
        y = integers.float().mul_(most / MOST).mul_(self.scale)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


def with_int8_weights(module: nn.Module) -> nn.Module:
    """The same module, all of its linear layers replaced: for inference, and not to be saved.

    Raises InputError as Int8Linear does, and for a module without linear layers of float weights, of which nothing would become faster.
    """
    linear = [(part, name, child) for part in module.modules() for name, child in part.named_children() if type(child) is nn.Linear]
    if not linear:
        done = any(getattr(part, "inference_only", False) for part in module.modules())
        why = "has int8 weights or compiled layers already: int8 weights come first" if done else "has no linear layers: use it as it is"
        raise InputError(f"int8 weights: a {type(module).__name__} {why}")
    for part, name, child in linear:
        setattr(part, name, Int8Linear(child))
    return module
