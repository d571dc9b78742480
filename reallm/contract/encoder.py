"""The contract of encoders: features to encoder frames, in chunks."""

from collections.abc import Iterator
from typing import Any

import torch

from reallm.contract.component import tiny
from reallm.contract.operation import TOLERANCE, Operation, operation_checks
from reallm.contract.requirement import require, require_equal
from reallm.protocols import ChunkSpec
from reallm.streaming.context import length_mask


def settings(cls: Any) -> Iterator[Operation]:
    """The chunk that ``tiny()`` has, a longer and a shorter one, one without left context, one without look-ahead."""
    own = tiny(cls).chunk
    chunks = [own, ChunkSpec(own.size + 3, own.left, own.right), ChunkSpec(1, own.left), ChunkSpec(own.size, 0, own.right)]
    for chunk in [*chunks, ChunkSpec(own.size, own.left), ChunkSpec(2, 2 * own.size, min(own.right, 2))]:
        component = tiny(cls)
        component.chunk = chunk
        size = chunk.size * component.geometry.stride

        def forward(feats: Any, lens: Any, component: Any = component) -> Any:
            return component.forward(feats, lens, component.chunk)

        yield Operation(str(chunk), component, forward, component.geometry, size, size, (component.input_dim,))


def check_look_ahead_is_declared(cls: Any) -> None:
    """The geometry's look-ahead is at most (chunk.size - 1 + chunk.right) · stride."""
    for operation in settings(cls):
        chunk, geometry = operation.component.chunk, operation.geometry
        most = (chunk.size - 1 + chunk.right) * geometry.stride
        require(geometry.look_ahead <= most, f"{chunk}: look-ahead {geometry.look_ahead} feature frames, at most {most} are allowed")


def check_full_context(cls: Any) -> None:
    """Without a chunk every row still gives what it gives alone, and padding changes nothing."""
    operation = next(settings(cls))
    lens = operation.lengths()
    x = operation.inputs(len(lens), int(lens.max()) + 9)
    out, out_lens = operation.component.forward(x, lens, None)
    require(bool(out.isfinite().all()), "full context: an output is not finite")
    require(out_lens.tolist() == [operation.geometry.outputs(n) for n in lens.tolist()], f"full context: lens {out_lens.tolist()}")
    require(not bool(out[~length_mask(out_lens, out.size(1))].any()), "full context: outputs after a row's end are not zero")
    for row, length in enumerate(lens.tolist()):
        alone, _ = operation.component.forward(x[row : row + 1, :length], lens[row : row + 1], None)
        require_equal(out[row, : out_lens[row]], alone[0, : out_lens[row]], f"full context: row {row} of {length}", TOLERANCE)


def check_left_context_is_used(cls: Any) -> None:
    """What was said before the chunk matters: a change in the first frame reaches the outputs of the second chunk."""
    operation = next(settings(cls))
    x, lens = operation.inputs(1, 2 * operation.chunk), torch.tensor([2 * operation.chunk])
    changed = x.clone()
    changed[:, operation.chunk - operation.geometry.stride :][:, : operation.geometry.stride] += 1.0
    first, second = operation.forward(x, lens)[0], operation.forward(changed, lens)[0]
    after = operation.chunk // operation.geometry.stride
    require(not torch.equal(first[:, after:], second[:, after:]), "the outputs of a chunk do not depend on anything before it")


CHECKS = [check_look_ahead_is_declared, check_full_context, check_left_context_is_used, *operation_checks(settings)]
