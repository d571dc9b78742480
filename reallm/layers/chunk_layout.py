"""How a sequence is laid out in chunks for attention with bounded left context and look-ahead. Legend: reallm/types.py.

A sequence of N frames becomes (B, chunks, size + right, D). Each chunk carries a copy of the ``right`` frames after it:
they are computed at every layer within their chunk, as in Emformer (Shi et al., 2021, section 2.2), and dropped at the
end, so that look-ahead does not grow with depth. ``right`` empty frames precede the sequence, so that a stream that
brings ``size`` frames at a time completes a chunk each time::

    size = 4, right = 1     frames   0 1 2 3 4 5 6 7 8
    chunk 0    . 0 1 2 | 3            keys: left context, chunk, copies
    chunk 1    3 4 5 6 | 7            a query sees all keys of its chunk that are inside the stream
    chunk 2    7 8 . . | .

Without look-ahead, ``group`` chunks share one block of queries and keys, and the mask keeps them apart: fewer keys are
copied. The results are the same.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from reallm.protocols import ChunkSpec
from reallm.streaming.constants import constant

T = TypeVar("T")


@dataclass(frozen=True)
class ChunkLayout:
    """Masks and sizes that all layers share."""

    size: int
    left: int
    right: int
    group: int  # chunks per block; 1 when right > 0
    padding: int  # empty frames that attention adds, so that groups divide the chunks
    valid: Tensor  # (B, chunks, size + right) bool, inside the stream
    mask: Tensor  # (B · blocks, 1, queries, keys) bool, true = is attended to; queries = 1 where all attend to the same keys
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # what layers made of it, for those after them

    @property
    def block(self) -> int:
        """Frames per block of queries, look-ahead copies aside."""
        return self.size * self.group

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made by the first of the layers that ask for ``key``."""
        if key not in self.cache:
            self.cache[key] = make()
        return cast(T, self.cache[key])


def chunks_of(x: Tensor, spec: ChunkSpec, chunks: int) -> Tensor:
    """x (B, N, …) → (B, chunks, size + right, …), zeros or false outside."""
    padded = x.new_zeros(x.size(0), chunks * spec.size + spec.right, *x.shape[2:])
    padded[:, spec.right : spec.right + x.size(1)] = x
    return padded.unfold(1, spec.size + spec.right, spec.size).movedim(-1, 2)


def step_layout(spec: ChunkSpec, valid: Tensor, left_valid: Tensor) -> tuple[ChunkLayout, Tensor]:
    """The ``layout`` of one chunk, the step of a stream, and the ``left_valid`` of the next one.

    Args:
        spec: of the chunk.
        valid: (B, size + right) bool.
        left_valid: (B, left) bool.
    """
    span, size = valid.size(1), left_valid.size(1) + valid.size(1)

    def itself() -> Tensor:
        return torch.arange(size, device=valid.device) == torch.arange(size - span, size, device=valid.device).unsqueeze(1)

    keys = torch.cat([left_valid, valid], dim=1)
    # A frame outside the stream sees itself as well: no row of the softmax is empty, so nothing becomes NaN.
    mask = keys[:, None, None] | constant(("itself", size, span, valid.device), itself)
    return ChunkLayout(spec.size, spec.left, spec.right, 1, 0, valid.unsqueeze(1), mask), keys[:, spec.size : spec.size + spec.left]


def layout(spec: ChunkSpec, valid: Tensor, left_valid: Tensor, group: int = 1) -> ChunkLayout:
    """The layout of chunks whose frames are ``valid`` (B, chunks, size + right) after left frames ``left_valid`` (B, left).

    Raises ValueError when chunks with look-ahead are grouped.
    """
    batch, chunks, _ = valid.shape
    if group > 1 and spec.right:
        raise ValueError(f"chunks with look-ahead {spec.right} in groups of {group}")
    block, padding = spec.size * group, -chunks % group * spec.size
    main = nn.functional.pad(valid[:, :, : spec.size].reshape(batch, chunks * spec.size), (0, padding))
    keys = torch.cat([left_valid, main], dim=1).unfold(1, spec.left + block, block)  # (B, blocks, left + block)
    if spec.right:
        keys = torch.cat([keys, valid[:, :, spec.size :]], dim=2)
    if chunks == 1 and not (spec.left or spec.right):
        # Full context: padding alone is masked, and one row of keys serves all queries: a row for each would be their square.
        # Where there is no frame, padding sees padding: no row of the softmax is empty, so nothing becomes NaN.
        mask = keys | ~keys.any(2, keepdim=True)
        return ChunkLayout(spec.size, spec.left, spec.right, group, padding, valid, mask.flatten(0, 1)[:, None, None])
    query = torch.arange(block + spec.right, device=valid.device)
    key = torch.arange(spec.left + block + spec.right, device=valid.device) - spec.left
    if group > 1:
        start = (query // spec.size * spec.size).unsqueeze(1)
        reachable = (key >= start - spec.left) & (key < start + spec.size)
    else:
        reachable = torch.ones(query.size(0), key.size(0), dtype=torch.bool, device=valid.device)
    # A frame outside the stream sees itself alone: no row of the softmax is empty, so nothing becomes NaN.
    mask = (keys.unsqueeze(2) & reachable) | (key == query.unsqueeze(1))
    return ChunkLayout(spec.size, spec.left, spec.right, group, padding, valid, mask.flatten(0, 1).unsqueeze(1))
