"""The contract of adapters: encoder frames to speech embeddings."""

from collections.abc import Iterator
from typing import Any

from reallm.contract.component import tiny
from reallm.contract.operation import Operation, operation_checks
from reallm.contract.requirement import require


def settings(cls: Any) -> Iterator[Operation]:
    """Steps of one and several embeddings, and of a size that is no multiple of the stride (the room of a flush)."""
    stride = tiny(cls).stride
    for size in (3 * stride, stride, 4 * stride + 1):
        component = tiny(cls)
        yield Operation(f"{size} frames a step", component, component.forward, component.geometry, size, stride, (component.input_dim,))


def check_geometry_is_the_stride(cls: Any) -> None:
    """The geometry says the same stride as ``stride``."""
    component = tiny(cls)
    require(component.geometry.stride == component.stride, f"stride {component.stride}, geometry {component.geometry}")


CHECKS = [check_geometry_is_the_stride, *operation_checks(settings)]
