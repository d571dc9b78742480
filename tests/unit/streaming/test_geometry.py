"""Window geometry, against the set of inputs that an output can see."""

import itertools

import pytest

from reallm.streaming.geometry import Geometry

GEOMETRIES = [Geometry(stride, look_ahead) for stride, look_ahead in itertools.product((1, 2, 3), (0, 1, 4))]


def last_input(geometry: Geometry, output: int) -> int:
    return (output + 1) * geometry.stride - 1 + geometry.look_ahead


@pytest.mark.parametrize("first", GEOMETRIES, ids=str)
@pytest.mark.parametrize("second", GEOMETRIES, ids=str)
def test_composition(first, second):
    both = first.then(second)
    for output in range(5):
        assert last_input(both, output) == last_input(first, last_input(second, output))


def test_composition_is_associative():
    a, b, c = GEOMETRIES[1], GEOMETRIES[5], GEOMETRIES[8]
    assert a.then(b).then(c) == a.then(b.then(c))
    assert Geometry().then(a) == a == a.then(Geometry())


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_outputs_are_rounded_up(inputs, outputs):
    assert Geometry(stride=4).outputs(inputs) == outputs
