"""What processes that train together need of a system."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from reallm.contract.system import training_batch
from reallm.registry import catalogue
from reallm.training.brain import _Loss


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """One process that has joined itself."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", sorted(catalogue("system")))
def test_every_system_trains_in_parallel(name: str) -> None:
    system: Any = catalogue("system")[name].tiny().double().train()
    parallel, batch = DistributedDataParallel(_Loss(system)), training_batch(system)
    for _ in range(2):  # the second pass refuses a weight that the first one left without a gradient
        loss, numbers = parallel(batch)
        loss.backward()
        assert float(numbers["targets"]) >= 1
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in system.parameters())
