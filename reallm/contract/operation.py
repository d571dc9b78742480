"""Checks of everything that maps a sequence to a sequence and streams: frontends, encoders, adapters.

Legend: reallm/types.py; here T inputs of any kind (samples, feature or encoder frames) and N outputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reallm.contract.requirement import require, require_equal
from reallm.streaming.context import length_mask
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState, batch_size, clone, reset, stack, tensors, unstack

TOLERANCE = 1e-9
GARBAGE = 1e3  # what lies in padding, where nothing may look


@dataclass
class Operation:
    """A component in one setting."""

    name: str  # of the setting
    component: Any
    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    geometry: Geometry
    chunk: int  # inputs per step
    quantum: int  # a row that is not final brings a multiple of this
    features: tuple[int, ...]  # what one input is made of; () = a number

    def inputs(self, rows: int, length: int, seed: int = 0) -> Tensor:
        """(rows, length, …) float64, of about 1/10: a waveform too may be that loud."""
        generator = torch.Generator().manual_seed(seed)
        return 0.1 * torch.randn(rows, length, *self.features, generator=generator, dtype=torch.float64)

    def init_state(self, rows: int) -> Any:
        """A float64 state."""
        return self.component.init_state(rows, "cpu", torch.float64)

    def lengths(self) -> Tensor:
        """(B,) lengths that end everywhere: in no, one and several chunks, at their ends and inside an output's period."""
        chunk, stride = self.chunk, self.geometry.stride
        return torch.tensor([3 * chunk + stride + 1, 0, 1, 3 * chunk, 2 * chunk - 1, chunk, chunk // 2 + 1, 4 * chunk])


Settings = Callable[[Any], Iterator[Operation]]
"""From a component's class: the component in each setting that is to be checked."""


def with_garbage(x: Tensor, lens: Tensor) -> Tensor:
    """x (B, T, …) with a large number in its padding."""
    mask = length_mask(lens, x.size(1)).view(*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.where(mask, x, GARBAGE)


def take(x: Tensor, start: Tensor, lens: Tensor, size: int) -> Tensor:
    """(B, size, …): of each row ``lens`` items from ``start`` (B,) on, then garbage."""
    index = (start.unsqueeze(1) + torch.arange(size)).clamp_max(max(x.size(1) - 1, 0))
    index = index.view(*index.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return with_garbage(x.gather(1, index), lens)


def stream(operation: Operation, x: Tensor, lens: Tensor, seed: int) -> list[Tensor]:
    """Each row's outputs (N_b, D), pushed in chunks of random fill; rows rest at random, so that their ages differ.

    Some rows are flushed by their last chunk, others by an empty one after it.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = lens.size(0)
    state = operation.init_state(rows)
    position, done = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.bool)
    outputs: list[list[Tensor]] = [[] for _ in range(rows)]
    width = None
    while not bool(done.all()):
        quanta = torch.randint(1, operation.chunk // operation.quantum + 1, (rows,), generator=generator)
        awake = (torch.rand(rows, generator=generator) > 0.3) & ~done
        left = lens - position
        filled = torch.where(awake, torch.minimum(quanta * operation.quantum, left), 0)
        last = filled == left
        final = awake & last & ((filled % operation.quantum > 0) | (torch.rand(rows, generator=generator) > 0.5))
        out, out_lens, state = operation.component.step(take(x, position, filled, operation.chunk), filled, final, state)
        require(width is None or out.size(1) == width, f"{operation.name}: a step returned {out.size(1)} outputs, another one {width}")
        width = out.size(1)
        require(bool((out_lens <= width).all()), f"{operation.name}: lens {out_lens.tolist()} exceed the {width} outputs of a step")
        require(out_lens.dtype == torch.int64, f"{operation.name}: lens are {out_lens.dtype}, not int64")
        require(not bool(out_lens[~awake].any()), f"{operation.name}: a row with nothing to do put out something")
        for row in range(rows):
            outputs[row].append(out[row, : out_lens[row]])
        position, done = position + filled, done | final
    return [torch.cat(pieces) for pieces in outputs]


def aged(operation: Operation, chunks: int, seed: int) -> Any:
    """The state of one row after ``chunks`` whole chunks."""
    state = operation.init_state(1)
    lens, final = torch.tensor([operation.chunk // operation.quantum * operation.quantum]), torch.tensor([False])
    for number in range(chunks):
        _, _, state = operation.component.step(operation.inputs(1, operation.chunk, 100 * seed + number), lens, final, state)
    return state


def operation_checks(settings: Settings) -> list[Callable[[Any], None]]:
    """The checks of an operation, each over all its settings."""

    def each(check: Callable[[Operation], None]) -> Callable[[Any], None]:
        @torch.no_grad()
        def run(cls: Any) -> None:
            for operation in settings(cls):
                check(operation)

        run.__name__, run.__doc__ = check.__name__, check.__doc__
        return run

    found = [each(check) for check in OPERATION_CHECKS]

    def check_gradient_reaches_every_parameter(cls: Any) -> None:
        """Every parameter has a gradient that is finite and not zero."""
        operation = next(settings(cls))
        if not any(parameter.requires_grad for parameter in getattr(operation.component, "parameters", list)()):
            return
        operation.component.train()
        out, lens = operation.forward(operation.inputs(3, 4 * operation.chunk), torch.full((3,), 4 * operation.chunk))
        (out[:, : int(lens.min())] * torch.randn(out.size(2), dtype=out.dtype)).square().sum().backward()
        require_gradients(operation.component)

    return [*found, check_gradient_reaches_every_parameter]


def require_gradients(component: Any) -> None:
    """Every parameter that asks for one has a finite gradient that is not zero."""
    for name, parameter in component.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None and bool(parameter.grad.any()), f"parameter {name} gets no gradient: it is not used")
            require(bool(parameter.grad.isfinite().all()), f"parameter {name} gets a gradient that is not finite")


def check_shapes_and_lengths(operation: Operation) -> None:
    """T inputs give ceil(T / stride) outputs of the declared width, none for no input, all finite, zeros after the end."""
    lens = operation.lengths()
    for length in (int(lens.max()), int(lens.max()) + 1):
        out, out_lens = operation.forward(with_garbage(operation.inputs(len(lens), length), lens), lens)
        expected = (len(lens), operation.geometry.outputs(length), operation.component.output_dim)
        require(tuple(out.shape) == expected, f"{operation.name}: shape {tuple(out.shape)} for {length} inputs, expected {expected}")
        counts = [operation.geometry.outputs(n) for n in lens.tolist()]
        require(out_lens.dtype == torch.int64 and out_lens.tolist() == counts, f"{operation.name}: lens {out_lens}, expected {counts}")
        require(bool(out.isfinite().all()), f"{operation.name}: an output is not finite")
        require(not bool(out[~length_mask(out_lens, out.size(1))].any()), f"{operation.name}: outputs after a row's end are not zero")
    empty, empty_lens = operation.forward(operation.inputs(2, 0), torch.zeros(2, dtype=torch.int64))
    require(empty.size(1) == 0 and not bool(empty_lens.any()), f"{operation.name}: no input at all gives {empty.size(1)} outputs")


def check_padding_changes_nothing(operation: Operation) -> None:
    """What lies after a row's end, and how much of it, has no influence."""
    lens = operation.lengths()
    length = int(lens.max())
    x = operation.inputs(len(lens), length + 3 * operation.chunk)
    out, out_lens = operation.forward(x[:, :length], lens)
    padded, _ = operation.forward(with_garbage(x, lens), lens)
    mask = length_mask(out_lens, out.size(1))
    require_equal(padded[:, : out.size(1)][mask], out[mask], f"{operation.name}: outputs with other padding", TOLERANCE)


def check_rows_do_not_mix(operation: Operation) -> None:
    """B rows together give what each gives alone."""
    lens = operation.lengths()
    x = operation.inputs(len(lens), int(lens.max()))
    out, out_lens = operation.forward(x, lens)
    for row, length in enumerate(lens.tolist()):
        alone, _ = operation.forward(x[row : row + 1, :length], lens[row : row + 1])
        require_equal(out[row, : out_lens[row]], alone[0, : out_lens[row]], f"{operation.name}: row {row} of {length} inputs", TOLERANCE)


def check_streaming_equals_offline(operation: Operation) -> None:
    """Chunks of any allowed fill, rows of different age, resting rows and odd ends give what the parallel pass gives."""
    lens = operation.lengths()
    x = operation.inputs(len(lens), int(lens.max()))
    out, out_lens = operation.forward(x, lens)
    for seed in range(3):
        for row, streamed in enumerate(stream(operation, x, lens, seed)):
            what = f"{operation.name}: streamed row {row} of {int(lens[row])} inputs"
            require_equal(streamed, out[row, : out_lens[row]], what, TOLERANCE)


def check_nothing_beyond_the_look_ahead(operation: Operation) -> None:
    """Inputs beyond the declared look-ahead of an output cannot change it."""
    length = 4 * operation.chunk + 1
    x, lens = operation.inputs(1, length), torch.tensor([length])
    out, _ = operation.forward(x, lens)
    stride, look_ahead = operation.geometry.stride, operation.geometry.look_ahead
    for position in range(1, length, max(1, length // 23)):
        changed = x.clone()
        changed[:, position:] += 1.0
        fixed = max(0, (position - look_ahead) // stride)
        same, _ = operation.forward(changed, lens)
        what = f"{operation.name}: outputs 0 … {fixed - 1} after a change from input {position} on (look-ahead {look_ahead})"
        require_equal(same[:, :fixed], out[:, :fixed], what, TOLERANCE)


def check_state_is_constant(operation: Operation) -> None:
    """Every tensor of a state has the rows first, and keeps its shape and type from the first chunk to the last."""
    state = operation.init_state(3)
    require(isinstance(state, StreamingState), f"{operation.name}: the state is a {type(state).__name__}, not a StreamingState")
    before = [(t.shape, t.dtype) for t in tensors(state)]
    require(all(shape[0] == 3 for shape, _ in before), f"{operation.name}: a tensor of the state has not the rows first: {before}")
    lens, final = torch.tensor([operation.chunk // operation.quantum * operation.quantum, 0, 0]), torch.tensor([False, True, False])
    for _ in range(3):
        _, _, state = operation.component.step(operation.inputs(3, operation.chunk), lens, final, state)
    after = [(t.shape, t.dtype) for t in tensors(state)]
    require(before == after, f"{operation.name}: the state changes its shapes or types: {before} became {after}")


def check_resting_rows_keep_their_state(operation: Operation) -> None:
    """A row that brings nothing keeps its state bit by bit."""
    state = stack([aged(operation, age, age) for age in range(4)])
    kept = clone(state)
    lens = torch.tensor([operation.chunk // operation.quantum * operation.quantum, 0, 0, 0])
    _, _, state = operation.component.step(operation.inputs(4, operation.chunk), lens, torch.zeros(4, dtype=torch.bool), state)
    for got, expected in zip(tensors(state), tensors(kept), strict=True):
        require_equal(got[1:], expected[1:], f"{operation.name}: the state of resting rows")


def check_stack_and_unstack(operation: Operation) -> None:
    """Streams of different age can share a batch and part again."""
    ages = [0, 3, 1, 2]
    singles = [aged(operation, age, age) for age in ages]
    together = stack([clone(s) for s in singles])
    require(batch_size(together) == len(ages), f"{operation.name}: {len(ages)} stacked states have {batch_size(together)} rows")
    for apart, single in zip(unstack(together), singles, strict=True):
        for got, expected in zip(tensors(apart), tensors(single), strict=True):
            require_equal(got, expected, f"{operation.name}: a state after stack and unstack")
    x, lens = (
        operation.inputs(len(ages), operation.chunk, 7),
        torch.full((len(ages),), operation.chunk // operation.quantum * operation.quantum),
    )
    final = torch.tensor([False, True, True, False])
    out, out_lens, _ = operation.component.step(x, lens, final, together)
    for row, single in enumerate(singles):
        one = slice(row, row + 1)
        alone, alone_lens, _ = operation.component.step(x[one], lens[one], final[one], single)
        what = f"{operation.name}: a row of age {ages[row]} among others"
        require(int(alone_lens) == int(out_lens[row]), f"{what}: {int(out_lens[row])} outputs, alone {int(alone_lens)}")
        require_equal(out[row, : out_lens[row]], alone[0, : out_lens[row]], what, TOLERANCE)


def check_reset_rows_begin_anew(operation: Operation) -> None:
    """Resetting a row leaves the others bit-equal and makes it a new stream."""
    state = stack([aged(operation, 2, seed) for seed in range(3)])
    fresh = reset(clone(state), torch.tensor([False, True, False]), operation.init_state(1))
    x, lens = operation.inputs(3, operation.chunk, 5), torch.full((3,), operation.chunk // operation.quantum * operation.quantum)
    final = torch.tensor([False, True, True])
    kept, kept_lens, _ = operation.component.step(x, lens, final, state)
    out, out_lens, _ = operation.component.step(x, lens, final, fresh)
    for row in (0, 2):
        valid = slice(0, int(kept_lens[row]))
        require(int(out_lens[row]) == int(kept_lens[row]), f"{operation.name}: row {row} puts out another number after row 1 was reset")
        require_equal(out[row, valid], kept[row, valid], f"{operation.name}: row {row} after row 1 was reset")
    new, new_lens = operation.forward(x[1:2, : int(lens[1])], lens[1:2])
    require(int(out_lens[1]) == int(new_lens), f"{operation.name}: a reset row puts out {int(out_lens[1])}, a new stream {int(new_lens)}")
    require_equal(out[1, : int(new_lens)], new[0, : int(new_lens)], f"{operation.name}: a row that was reset", TOLERANCE)


OPERATION_CHECKS = [
    check_shapes_and_lengths,
    check_padding_changes_nothing,
    check_rows_do_not_mix,
    check_streaming_equals_offline,
    check_nothing_beyond_the_look_ahead,
    check_state_is_constant,
    check_resting_rows_keep_their_state,
    check_stack_and_unstack,
    check_reset_rows_begin_anew,
]
