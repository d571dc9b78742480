"""Parts of a system that training leaves as they are: a pre-trained encoder under a new decoder, say."""

from collections.abc import Sequence

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
