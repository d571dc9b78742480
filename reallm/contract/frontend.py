"""The contract of frontends: waveform to features, without look-ahead."""

from collections.abc import Iterator
from typing import Any

from reallm.contract.component import tiny
from reallm.contract.operation import Operation, operation_checks
from reallm.contract.requirement import require


def settings(cls: Any) -> Iterator[Operation]:
    """Steps of one, three and eight frames."""
    for frames in (3, 1, 8):
        component = tiny(cls)
        shift = component.frame_shift
        yield Operation(f"{frames} frames a step", component, component.forward, component.geometry, frames * shift, shift, ())


def check_geometry_is_the_frame_shift(cls: Any) -> None:
    """The geometry's stride is the frame shift, and there is no look-ahead."""
    component = tiny(cls)
    geometry = component.geometry
    require(geometry.stride == component.frame_shift, f"stride {geometry.stride}, frame_shift {component.frame_shift}")
    require(geometry.look_ahead == 0, f"a look-ahead of {geometry.look_ahead} samples: a frame must end with its own period")


CHECKS = [check_geometry_is_the_frame_shift, *operation_checks(settings)]
