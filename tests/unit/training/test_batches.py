"""The position in an epoch is what was consumed."""

import torch
from torch.utils.data import DataLoader

from reallm.training.batches import EpochBatches
from tests.dummies.training import TinyData


def test_an_epoch_goes_on_with_equal_batches_whatever_was_drawn_between() -> None:
    batches = EpochBatches(TinyData(size=5), seed=1)
    batches.begin(epoch=2, consumed=0)
    whole = [batch.wav for batch in DataLoader(batches, batch_size=None)]
    assert len(whole) == len(batches) == 5
    torch.rand(7)
    batches.begin(epoch=2, consumed=3)
    rest = []
    for batch in DataLoader(batches, batch_size=None):
        rest.append(batch.wav)
        torch.rand(3)
    assert [torch.equal(one, other) for one, other in zip(rest, whole[3:], strict=True)] == [True, True]


def test_an_epoch_that_is_consumed_loads_nothing() -> None:
    data = TinyData(size=5)
    batches = EpochBatches(data, seed=1)
    batches.begin(epoch=1, consumed=5)
    assert list(batches) == []
    assert data.served == []
