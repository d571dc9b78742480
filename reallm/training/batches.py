"""The batches of an epoch from the one where training stands."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch.utils.data import IterableDataset

from reallm.errors import InputError
from reallm.protocols import Tokenizer
from reallm.training.randomness import seed_position
from reallm.types import Batch


class TrainingSource(Protocol):
    """What the key ``data`` of a training configuration builds."""

    def loader(self, epoch: int, start: int = 0, step: int = 1, /) -> Iterable[Batch]:
        """Every ``step``-th batch of ``epoch`` (from 1) from number ``start`` on: equal to ``[start::step]`` of all of them."""

    def batches(self, epoch: int) -> int:
        """How many batches ``epoch`` has."""


@runtime_checkable
class TranscribedSource(Protocol):
    """A source whose transcripts can be read before training begins."""

    def transcripts(self, tokenizer: Tokenizer, /) -> Iterable[tuple[str, str]]:
        """Id and text of every utterance. Raises InputError for one that cannot be trained on with ``tokenizer``."""


@runtime_checkable
class ManifestSource(Protocol):
    """A source whose utterances are listed in one file."""

    path: Path


def refuse_transcripts(source: TrainingSource, tokenizer: Tokenizer | None) -> None:
    """Raises InputError for the first transcript that ``tokenizer`` cannot encode, or that was changed since it was aligned: not hours
    later, in the middle of an epoch, or never."""
    if tokenizer is None or not isinstance(source, TranscribedSource):
        return
    for name, text in source.transcripts(tokenizer):
        try:
            tokenizer.encode(text)
        except InputError as error:
            raise InputError(f"utterance '{name}': {error}") from None


class EpochBatches(IterableDataset[Batch]):
    """What ``Brain.fit`` iterates over in every epoch.

    A loader's own position counts what it has prefetched; here the position is what training has *consumed*, and it is
    given from outside before each epoch.

    Args:
        source: all batches.
        seed: of what is drawn while a batch is made.
        rank: of ``processes`` that take turns, this one takes the batches ``rank``, ``rank + processes``, …; all take equally many,
            and those left over at the end of an epoch are left out.
    """

    def __init__(self, source: TrainingSource, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.source = source
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.begin(epoch=1, consumed=0)

    def begin(self, epoch: int, consumed: int) -> None:
        """Say which epoch comes next, and how many of its batches this process consumed already."""
        self.epoch = epoch
        self.consumed = consumed

    def number(self, consumed: int) -> int:
        """The number in the epoch of the batch that this process takes after ``consumed`` others."""
        return consumed * self.processes + self.rank

    def __len__(self) -> int:
        return self.source.batches(self.epoch) // self.processes

    def __iter__(self) -> Iterator[Batch]:
        if self.consumed >= len(self):
            return
        batches = iter(self.source.loader(self.epoch, self.number(self.consumed), self.processes))
        for consumed in range(self.consumed, len(self)):
            # Before the batch is made: what is drawn in this process while making it must not depend on the batches before.
            seed_position(self.seed, self.epoch, self.number(consumed), "data")
            yield next(batches)
