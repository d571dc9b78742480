"""Settings and schedules refuse what cannot be."""

import functools
import itertools
import math

import pytest
import torch

from reallm.errors import InputError
from reallm.training.schedules import Schedule, WarmupCosine, WarmupInverseSqrt
from reallm.training.settings import TrainingSettings

GOOD = {"epochs": 1, "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3), "schedule": WarmupCosine(10)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is 0: at least 1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"keep": 2, "average": 3}, "set keep to 3"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0: above 0"),
        ({"optimizer": torch.optim.AdamW([torch.zeros(1)])}, "!name:"),
    ],
)
def test_wrong_settings(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingSettings(**{**GOOD, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [WarmupCosine(10), WarmupInverseSqrt(10)])
def test_the_warm_up_rises_in_equal_steps_to_one(schedule: Schedule) -> None:
    factors = [schedule.factor(update, 100) for update in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (update + 1) for update in range(10)])
    assert max(factors) == pytest.approx(1.0)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(factors[10:]))


def test_cosine_ends_at_its_floor_and_is_halfway_in_the_middle() -> None:
    schedule = WarmupCosine(10, floor=0.2)
    assert schedule.factor(55, 100) == pytest.approx(0.6)
    assert schedule.factor(100, 100) == pytest.approx(0.2)
    assert schedule.factor(1000, 100) == pytest.approx(0.2)


def test_inverse_square_root() -> None:
    assert WarmupInverseSqrt(100).factor(399, 0) == pytest.approx(math.sqrt(100 / 400))


def test_wrong_schedules() -> None:
    with pytest.raises(InputError, match="warmup is 0"):
        WarmupCosine(0)
    with pytest.raises(InputError, match="warmup is -1"):
        WarmupInverseSqrt(-1)
    with pytest.raises(InputError, match="floor is 2"):
        WarmupCosine(1, floor=2)
