"""Parts of a system that training leaves as they are: a pre-trained encoder under a new decoder, say."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import nn

from reallm.errors import InputError, nearest


def frozen_parts(system: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The components of ``system`` that are not to be trained.

    Raises InputError for a name that none with weights has, and where nothing would be left to train.
    """
    known = {name: part for name, part in system.named_children() if any(True for _ in part.parameters())}
    for name in names:
        if name not in known:
            raise InputError(f"training: frozen has '{name}'{nearest(name, known)}: the system's parts with weights are {', '.join(known)}")
    inside = {id(parameter) for name in names for parameter in known[name].parameters()}
    if names and not any(p.requires_grad and id(p) not in inside for p in system.parameters()):
        raise InputError(f"training: frozen is {', '.join(names)}: nothing is left to train")
    return [known[name] for name in dict.fromkeys(names)]


def freeze(system: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Let these components have no gradients, so that no optimizer holds them and nothing of them is kept for a backward pass.

    Returns them: a training loop keeps them in evaluation mode, without dropout and with the statistics that they have.
    Raises InputError as ``frozen_parts``.
    """
    parts = frozen_parts(system, names)
    for part in parts:
        part.requires_grad_(False)
    return parts


@dataclass(frozen=True)
class Held:
    """What is frozen at first and trained later."""

    parameters: list[nn.Parameter]
    modules: list[nn.Module]  # the largest ones all of whose parameters are held: in evaluation mode meanwhile


def held_at_first(system: nn.Module, names: Sequence[str], taken: Collection[str]) -> Held:
    """What of these components is held: the parameters in ``taken``, names in ``system`` of what came from --init.

    What is new in a component, such as more layers on top of an encoder, has nothing to forget, and is trained from the first update on. A
    component of which nothing came from --init (an LLM, whose weights are its own) is held as a whole.
    Raises InputError as ``frozen_parts``.
    """
    found = Held([], [])
    for name, part in zip(dict.fromkeys(names), frozen_parts(system, names), strict=True):
        own = dict(part.named_parameters(prefix=name))
        held = {id(p) for key, p in own.items() if key in taken} or {id(p) for p in own.values()}
        found.parameters.extend(p for p in own.values() if id(p) in held)
        found.modules.extend(_largest(part, held))
    return found


def _largest(module: nn.Module, held: Collection[int]) -> list[nn.Module]:
    inside = [id(parameter) in held for parameter in module.parameters()]
    return [module] if inside and all(inside) else [found for child in module.children() for found in _largest(child, held)]
