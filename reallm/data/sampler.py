"""Which utterances make up which batch: decided from their durations alone, so that nothing needs to be loaded for it."""

from collections.abc import Iterator, Sequence
from typing import Any

from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import Sampler


def duration_of(line: dict[str, Any]) -> float:
    """Seconds of a cut, given as the dictionary that a manifest's line holds."""
    if "tracks" not in line:
        return float(line["duration"])
    return max(round(float(t.get("offset", 0.0)) + duration_of(t["cut"]), 8) for t in line["tracks"] if not t.get("mute"))


class _Lengths:
    """Cuts that have nothing but an index and a duration."""

    is_lazy = True

    def __init__(self, durations: Sequence[float]) -> None:
        self.durations = durations

    def __iter__(self) -> Iterator[MonoCut]:
        for index, duration in enumerate(self.durations):
            yield MonoCut(str(index), 0.0, duration, 0)


def schedule(durations: Sequence[float], epoch: int, seed: int, max_duration: float, num_buckets: int) -> list[list[int]]:
    """The batches of an epoch as indices into ``durations``: like lengths together, at most ``max_duration`` seconds.

    A function of its arguments: lhotse's DynamicBucketingSampler, seeded with ``seed`` and ``epoch``.
    """
    if len(durations) < 2:  # too few for lhotse to tell lengths apart
        return [[index] for index in range(len(durations))]
    # Every process knows all batches, so that one process and several take the same ones in the same order.
    sampler = DynamicBucketingSampler(
        CutSet(_Lengths(durations)),
        max_duration=max_duration,
        num_buckets=max(2, min(num_buckets, len(durations))),
        shuffle=True,
        seed=seed,
        world_size=1,
        rank=0,
    )
    sampler.set_epoch(epoch)
    return [[int(cut.id) for cut in batch] for batch in sampler]


class BatchSampler(Sampler[list[bytes]]):
    """The manifest lines of every ``step``-th batch from batch ``start`` on: as lhotse's samplers split batches among processes."""

    def __init__(self, batches: Sequence[Sequence[int]], lines: Sequence[bytes], start: int = 0, step: int = 1) -> None:
        self.batches = batches[start::step]
        self.lines = lines

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[bytes]]:
        for batch in self.batches:
            yield [self.lines[index] for index in batch]
