"""The contract of decoders, which give logits, and of predictors, whose outputs have a width of their own. Legend: reallm/types.py."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reallm.contract.component import tiny
from reallm.contract.operation import GARBAGE, TOLERANCE, require_gradients
from reallm.contract.requirement import require, require_equal
from reallm.streaming.state import StreamingState, clone, reset, stack, tensors, unstack

LENGTHS = (23, 1, 12, 17)
"""Positions of the rows: beyond the attention window that ``tiny()`` has."""


def inputs(decoder: Any, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D_lm) with a large number in the padding, and lens (B,)."""
    generator = torch.Generator().manual_seed(seed)
    lens = torch.tensor(list(lengths))
    x = torch.randn(len(lengths), max(lengths), decoder.input_dim, generator=generator, dtype=torch.float64)
    x[torch.arange(max(lengths)) >= lens.unsqueeze(1)] = GARBAGE
    return x, lens


def width(decoder: Any) -> int:
    """Numbers of one output."""
    return int(getattr(decoder, "output_dim", decoder.vocab_size))


def aged(decoder: Any, positions: int, seed: int) -> StreamingState:
    """The state of one row after ``positions`` positions."""
    state = decoder.init_state(1, "cpu", torch.float64)
    if positions:
        for x in inputs(decoder, [positions], seed)[0][0]:
            _, state = decoder.step(x.unsqueeze(0), torch.tensor([True]), state)
    return state


@torch.no_grad()
def check_shapes(cls: Any) -> None:
    """Outputs are (B, L, V), or as wide as declared; embeddings are D_lm wide, for ids of any shape, BLANK's too."""
    decoder = tiny(cls)
    x, lens = inputs(decoder)
    out = decoder.forward(x, lens)
    require(tuple(out.shape) == (*x.shape[:2], width(decoder)), f"outputs of shape {tuple(out.shape)} for inputs {tuple(x.shape)}")
    ids = torch.tensor([[0, decoder.vocab_size - 1]])
    require(tuple(decoder.embed(ids).shape) == (1, 2, decoder.input_dim), f"embed gives {tuple(decoder.embed(ids).shape)}")


@torch.no_grad()
def check_future_has_no_effect(cls: Any) -> None:
    """An input cannot change the outputs of the positions before it, and padding cannot change any."""
    decoder = tiny(cls)
    x, lens = inputs(decoder)
    out = decoder.forward(x, lens)
    for row, length in enumerate(lens.tolist()):
        for position in sorted({1, -(-length // 2), length}):
            alone = decoder.forward(x[row : row + 1, :position], torch.tensor([position]))[0]
            what = f"outputs of row {row}, positions before {position}, without what follows and the other rows"
            require_equal(alone[:position], out[row, :position], what, TOLERANCE)


@torch.no_grad()
def check_steps_equal_forward(cls: Any) -> None:
    """Position by position, rows starting and resting at different times, the outputs are those of the parallel pass."""
    decoder = tiny(cls)
    x, lens = inputs(decoder)
    out = decoder.forward(x, lens)
    rows = len(lens)
    state, position = decoder.init_state(rows, "cpu", torch.float64), torch.zeros(rows, dtype=torch.int64)
    generator = torch.Generator().manual_seed(1)
    while bool((position < lens).any()):
        active = (position < lens) & (torch.rand(rows, generator=generator) > 0.4)
        now = position.clamp_max(x.size(1) - 1)
        one = torch.where(active.unsqueeze(1), x[torch.arange(rows), now], GARBAGE)
        answer, state = decoder.step(one, active, state)
        require(tuple(answer.shape) == (rows, width(decoder)), f"a step's outputs have shape {tuple(answer.shape)}")
        for row in active.nonzero().flatten().tolist():
            what = f"outputs of row {row} at position {int(now[row])}, stepped"
            require_equal(answer[row], out[row, now[row]], what, TOLERANCE)
        position = position + active


@torch.no_grad()
def check_state_is_constant(cls: Any) -> None:
    """Every tensor of a state has the rows first and keeps its shape and type."""
    decoder = tiny(cls)
    state = decoder.init_state(3, "cpu", torch.float64)
    before = [(t.shape, t.dtype) for t in tensors(state)]
    require(all(shape[0] == 3 for shape, _ in before), f"a tensor of the state has not the rows first: {before}")
    for x in inputs(decoder, [9, 9, 9])[0].transpose(0, 1):
        _, state = decoder.step(x, torch.tensor([True, False, True]), state)
    after = [(t.shape, t.dtype) for t in tensors(state)]
    require(before == after, f"the state changes its shapes or types: {before} became {after}")


@torch.no_grad()
def check_rows_of_different_age(cls: Any) -> None:
    """Streams of different age share a batch and part again; a reset row is new and leaves the others bit-equal."""
    decoder = tiny(cls)
    ages = (0, 11, 1, 4)
    singles = [aged(decoder, age, seed) for seed, age in enumerate(ages)]
    together = stack([clone(s) for s in singles])
    for apart, single in zip(unstack(together), singles, strict=True):
        for got, expected in zip(tensors(apart), tensors(single), strict=True):
            require_equal(got, expected, "a state after stack and unstack")
    x, active = inputs(decoder, [1] * len(ages), 9)[0][:, 0], torch.ones(len(ages), dtype=torch.bool)
    anew = torch.tensor([False, False, False, True])
    fresh = reset(clone(together), anew, decoder.init_state(1, "cpu", torch.float64))
    out, _ = decoder.step(x, active, together)
    for row, single in enumerate(singles):
        alone, _ = decoder.step(x[row : row + 1], active[row : row + 1], single)
        require_equal(out[row], alone[0], f"outputs of a row of age {ages[row]} among others", TOLERANCE)
    after, _ = decoder.step(x, active, fresh)
    require_equal(after[~anew], out[~anew], "outputs of the other rows after one was reset")
    new, _ = decoder.step(x[anew], active[anew], decoder.init_state(1, "cpu", torch.float64))
    require_equal(after[anew], new, "outputs of a row that was reset", TOLERANCE)


@torch.no_grad()
def check_resting_rows_keep_their_future(cls: Any) -> None:
    """What a row that is not active is given, and how often it rests, has no influence on it."""
    decoder = tiny(cls)
    state = stack([aged(decoder, 7, 0), aged(decoder, 3, 1)])
    rested = clone(state)
    for seed in range(3):
        _, rested = decoder.step(GARBAGE * inputs(decoder, [1, 1], seed)[0][:, 0], torch.tensor([False, False]), rested)
    for x in inputs(decoder, [8, 8], 5)[0].transpose(0, 1):
        both = torch.tensor([True, True])
        out, state = decoder.step(x, both, state)
        same, rested = decoder.step(x, both, rested)
        require_equal(same, out, "outputs after a rest")


def check_gradient_reaches_every_parameter(cls: Any) -> None:
    """Every parameter, the token embedding's too, has a gradient that is finite and not zero."""
    decoder = tiny(cls).train()
    ids = torch.randint(decoder.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    out = decoder.forward(decoder.embed(ids), torch.tensor([9, 9]))
    (out * torch.randn(width(decoder), dtype=out.dtype)).square().sum().backward()
    require_gradients(decoder)


CHECKS = [
    check_shapes,
    check_future_has_no_effect,
    check_steps_equal_forward,
    check_state_is_constant,
    check_rows_of_different_age,
    check_resting_rows_keep_their_future,
    check_gradient_reaches_every_parameter,
]
