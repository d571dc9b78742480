"""A system for streams on a processor, with compiled layers."""

from collections.abc import Callable
from typing import Any

from torch import nn

from reallm.decoders.llama import LlamaDecoder
from reallm.encoders.conformer import ConformerEncoder, ConformerLayer
from reallm.errors import InputError
from reallm.layers.int8_linear import Int8Linear
from reallm.streaming.compiled.conformer import CompiledConformerEncoder, CompiledConformerLayer
from reallm.streaming.compiled.library import kernels
from reallm.streaming.compiled.linear import PackedLinear
from reallm.streaming.compiled.llama import CompiledLlamaDecoder
from reallm.streaming.compiled.native import Native, require_float32
from reallm.streaming.compiled.pages import in_large_pages

# In this order: those that come later take over what the earlier ones made.
COMPILED: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: PackedLinear,
    Int8Linear: PackedLinear,
    ConformerLayer: CompiledConformerLayer,
    ConformerEncoder: CompiledConformerEncoder,
    LlamaDecoder: CompiledLlamaDecoder,
}


def with_compiled_layers(system: Any) -> Any:
    """The same system, or part of one, with packed linear layers and compiled Conformer layers and Llama decoders: for inference alone.

    Its streams' results are those of before, up to the order in which float32 numbers are summed, and those of a row do not depend on
    the other rows, to the bit. Layers of other kinds gain by their linear layers alone. They compute in the thread that calls, whatever the
    number of torch's threads: for one stream or some, a core each. Linear layers of int8 (``with_int8_weights``, beforehand) remain so, and
    then results are those of int8 weights. The system is not to be saved or exported any more.

    Raises InputError for a system in training mode, on another device than the CPU or in another type than float32, for one without linear
    layers, and as ``library.kernels``, where there is no compiler.
    """
    if system.training:
        raise InputError("compiled layers are for inference, and the system is in training mode: call system.eval() first")
    require_float32(system)
    kernels()
    if not any(type(part) in (nn.Linear, Int8Linear) for part in system.modules()):
        done = any(isinstance(part, Native) for part in system.modules())
        why = "has them already" if done else "has no linear layers: use it as it is"
        raise InputError(f"compiled layers: a {type(system).__name__} {why}")
    root = nn.ModuleDict({"system": system})  # it may be a layer itself
    for kind, compiled in COMPILED.items():
        found = [(part, name, child) for part in root.modules() for name, child in part.named_children() if type(child) is kind]
        for part, name, child in found:
            setattr(part, name, compiled(child).eval())
    packed = [part for part in root.modules() if isinstance(part, PackedLinear)]
    for part, weight in zip(packed, in_large_pages([part.weight for part in packed]), strict=True):
        part.weight = weight
    return root["system"]
