"""What holds for components of every kind."""

import inspect
from typing import Any

import torch
from torch import nn

from reallm import protocols
from reallm.contract.requirement import require, require_equal
from reallm.registry import catalogue, spec_of

PROTOCOLS: dict[str, Any] = {
    "frontend": protocols.Frontend,
    "encoder": protocols.Encoder,
    "adapter": protocols.Adapter,
    "aligner": protocols.Aligner,
    "interleaver": protocols.Interleaver,
    "decoder": protocols.Decoder,
    "predictor": protocols.Predictor,
    "searcher": protocols.Searcher,
    "tokenizer": protocols.Tokenizer,
    "system": protocols.System,
}


def tiny(cls: Any, seed: int = 0) -> Any:
    """``cls.tiny()`` from a fixed seed, in float64 and evaluation mode where it is a module; torch's generator is left alone."""
    require(callable(getattr(cls, "tiny", None)), f"{cls.__qualname__} has no class method tiny() that builds a small one for these checks")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        component = cls.tiny()
    return component.double().eval() if isinstance(component, nn.Module) else component


def rebuild(component: Any) -> Any:
    """The component built again from its recorded spec, and those that it is composed of."""
    spec = spec_of(component)

    def again(value: Any) -> Any:
        if hasattr(value, "component_spec"):
            return rebuild(value)
        return type(value)(again(v) for v in value) if type(value) in (list, tuple) else value

    return catalogue(spec.kind)[spec.name](**{key: again(value) for key, value in spec.kwargs.items()})


def check_is_described(cls: type) -> None:
    """The class says in a docstring what it is, and names its constructor's arguments."""
    require(inspect.getdoc(cls), f"{cls.__qualname__} has no docstring")
    parameters = list(inspect.signature(cls).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    loose = [p.name for p in parameters if p.kind in kinds]
    require(not loose, f"{cls.__qualname__} takes {', '.join(loose)}: name every argument, or no configuration of it can be checked")


def check_keeps_protocol(cls: Any) -> None:
    """``tiny()`` builds one that has all members of its kind's protocol."""
    component, protocol = tiny(cls), PROTOCOLS[cls.component_kind]
    if protocol is protocols.System and protocols.streams(component):
        protocol = protocols.StreamingSystem
    require(type(component) is cls, f"{cls.__qualname__}.tiny() built a {type(component).__qualname__}")
    members = [
        name
        for each in inspect.getmro(protocol)[:-1]
        for name in [*vars(each).get("__annotations__", {}), *(name for name, value in vars(each).items() if inspect.isfunction(value))]
    ]
    missing = [name for name in members if not name.startswith("_") and not hasattr(component, name)]
    require(not missing, f"{cls.__qualname__} lacks {', '.join(missing)} of protocols.{protocol.__name__}")


def check_is_rebuilt_from_its_spec(cls: Any) -> None:
    """The recorded constructor arguments build the same component: the same weights fit."""
    component = tiny(cls)
    spec = spec_of(component)
    require((spec.kind, spec.name) == (cls.component_kind, cls.component_name), f"recorded as {spec.kind} '{spec.name}'")
    again = rebuild(component)
    require(spec_of(again).kwargs.keys() == spec.kwargs.keys(), "the rebuilt component records other arguments")
    if isinstance(component, nn.Module):
        weights, other = component.state_dict(), again.state_dict()
        require(weights.keys() == other.keys(), f"weights {sorted(weights.keys() ^ other.keys())} are in one of them only")
        for name, value in weights.items():
            require(value.shape == other[name].shape, f"{name}: shape {tuple(value.shape)}, rebuilt {tuple(other[name].shape)}")


def check_checkpoint_round_trip(cls: Any) -> None:
    """All weights survive ``state_dict`` and ``load_state_dict`` into a rebuilt component, bit by bit."""
    component = tiny(cls)
    if not isinstance(component, nn.Module):
        return
    again = rebuild(component).double()
    again.load_state_dict(component.state_dict())
    for (name, value), other in zip(component.state_dict().items(), again.state_dict().values(), strict=True):
        require_equal(other, value, f"weight {name} after a checkpoint")


CHECKS = [check_is_described, check_keeps_protocol, check_is_rebuilt_from_its_spec, check_checkpoint_round_trip]
