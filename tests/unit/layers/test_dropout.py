"""Dropout from random bytes."""

import pytest
import torch

from reallm.errors import InputError
from reallm.layers.dropout import Dropout


@pytest.mark.parametrize("shape", [(1001, 97), (3, 5, 7), (1,), (0, 4)])
def test_keeps_shape_and_gradient(shape):
    x = torch.ones(shape, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert torch.equal(x.grad, y.detach())


def test_drops_as_many_as_it_says_and_keeps_the_mean():
    torch.manual_seed(0)
    y = Dropout(0.25)(torch.ones(1000, 1000))
    assert abs(float((y == 0).float().mean()) - 0.25) < 0.002
    assert abs(float(y.mean()) - 1.0) < 0.003
    columns = (y == 0).float().mean(0)
    assert columns.min() > 0.19  # no byte of a word is special
    assert columns.max() < 0.31


def test_follows_the_global_generator():
    x = torch.ones(100, 100)
    torch.manual_seed(5)
    first = Dropout(0.5)(x)
    torch.manual_seed(5)
    assert torch.equal(Dropout(0.5)(x), first)


def test_is_nothing_in_evaluation():
    x = torch.ones(4)
    assert Dropout(0.5).eval()(x) is x


def test_probability_is_checked():
    with pytest.raises(InputError, match="from 0 to"):
        Dropout(1.0)
