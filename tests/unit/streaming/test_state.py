"""The algebra of streaming states."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from reallm.streaming.state import StreamingState, advance, batch_size, clone, map_states, reset, select, stack, tensors, unstack, where


@dataclass
class Inner(StreamingState):
    count: Tensor  # (B,) int64


@dataclass
class Outer(StreamingState):
    frames: Tensor  # (B, 2, 3)
    layers: tuple[Inner, ...]
    seen: Tensor  # (B,) bool


def state(*values: int) -> Outer:
    v = torch.tensor(values)
    return Outer(v.view(-1, 1, 1).float().expand(-1, 2, 3).clone(), (Inner(v.clone()), Inner(v + 100)), v > 1)


def values(s: Outer) -> list[int]:
    assert torch.equal(s.layers[0].count + 100, s.layers[1].count)
    assert torch.equal(s.frames[:, 0, 0].long(), s.layers[0].count)
    assert torch.equal(s.seen, s.layers[0].count > 1)
    return s.layers[0].count.tolist()


def test_tensors_come_in_the_order_of_the_fields():
    assert [t.dim() for t in tensors(state(1, 2))] == [3, 1, 1, 1]
    assert batch_size(state(1, 2)) == 2


def test_stack_and_unstack():
    together = stack([state(1), state(2, 3), state(4)])
    assert values(together) == [1, 2, 3, 4]
    assert [values(s) for s in unstack(together)] == [[1], [2], [3], [4]]


def test_select():
    assert values(select(state(5, 6, 7), torch.tensor([2, 0, 0]))) == [7, 5, 5]


def test_where_and_reset():
    mask = torch.tensor([True, False, True])
    assert values(where(mask, state(1, 2, 3), state(4, 5, 6))) == [1, 5, 3]
    assert values(reset(state(1, 2, 3), mask, state(9))) == [9, 2, 9]
    assert values(reset(state(1, 2, 3), mask, state(7, 8, 9))) == [7, 2, 9]


def test_reset_writes_into_the_rows_that_begin_anew_alone():
    used = state(1, 2, 3)
    addresses = [tensor.data_ptr() for tensor in tensors(used)]
    used.frames[1] = float("nan")  # a row that is not touched is not computed with either
    anew = reset(used, torch.tensor([True, False, True]), state(9))
    assert [tensor.data_ptr() for tensor in tensors(anew)] == addresses
    assert anew.layers[0].count.tolist() == [9, 2, 9] and anew.frames[:, 0, 0].isnan().tolist() == [False, True, False]
    assert values(reset(state(1, 2), torch.tensor([False, False]), state(9))) == [1, 2]


@pytest.mark.parametrize("active", [[True] * 3, [False] * 3, [True, False, True], [False, True, False]])
def test_active_rows_advance(active: list[bool]):
    before, after = state(1, 2, 3), state(4, 5, 6)
    expected = values(where(torch.tensor(active), state(4, 5, 6), state(1, 2, 3)))
    found = advance(torch.tensor(active), after, before)
    assert values(found) == expected
    owner = after if all(active) else before
    assert [tensor.data_ptr() for tensor in tensors(found)] == [tensor.data_ptr() for tensor in tensors(owner)]


def test_active_rows_advance_in_an_exported_program():
    class Step(torch.nn.Module):
        def forward(self, active: Tensor, after: Tensor, before: Tensor) -> Tensor:
            return advance(active, Inner(after), Inner(before)).count

    given = (torch.tensor([True, False]), torch.tensor([1, 2]), torch.tensor([3, 4]))
    program = torch.export.export(Step(), given).module()
    assert program(*given).tolist() == [1, 4]
    assert program(~given[0], *given[1:]).tolist() == [3, 2]


@pytest.mark.parametrize(
    "copy",
    [
        clone,
        lambda s: unstack(s)[0],
        lambda s: stack([s]),
        lambda s: select(s, torch.tensor([0])),
        lambda s: where(torch.tensor([True]), s, s),
    ],
)
def test_copies_share_no_memory(copy):
    original = state(1)
    for tensor in tensors(copy(original)):
        tensor.fill_(0)
    assert values(original) == [1]


def test_only_tensors_states_and_tuples():
    @dataclass
    class Wrong(StreamingState):
        buffers: list

    with pytest.raises(TypeError, match="not list"):
        map_states(torch.clone, Wrong([torch.zeros(1)]))


def test_tuples_of_different_length_do_not_match():
    other = state(1)
    other.layers = other.layers[:1]
    with pytest.raises(ValueError, match="shorter"):
        stack([state(1), other])
