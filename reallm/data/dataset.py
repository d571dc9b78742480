"""Batches for training and scoring, from manifests.

The order of batches and all randomness are functions of (seed, epoch), so that a run that goes on from batch n sees what
it would have seen; the batches before n are not loaded.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.serialization import deserialize_item
from torch.utils.data import DataLoader, Dataset, Sampler

from reallm.data.alignments import token_alignment, token_meta
from reallm.data.augmentation import Augmentation
from reallm.data.cuts import load_audio, read_lines, speaker_of, text_of
from reallm.errors import InputError
from reallm.types import Alignment, Batch


def _alignments(cuts: Sequence[Cut], sample_rate: int, tokenizer: str | None) -> list[Alignment] | None:
    found = []
    for cut in cuts:
        meta = token_meta(cut)
        if tokenizer is not None and meta is None:
            raise InputError(f"cut '{cut.id}' has no token alignment: run `reallm align` on its manifest first")
        if tokenizer is not None and meta is not None and meta["tokenizer"] != tokenizer:
            raise InputError(
                f"cut '{cut.id}' was aligned with tokenizer {meta['tokenizer']}, not with {tokenizer}: run `reallm align` again"
            )
        alignment = token_alignment(cut, sample_rate)
        if alignment is None:
            return None
        found.append(alignment)
    return found


def load_batch(
    cuts: Sequence[Cut],
    sample_rate: int,
    tokenizer: str | None = None,
    augmentation: Augmentation | None = None,
    seed: tuple[int, ...] = (0,),
) -> Batch:
    """The audio, texts and token alignments of B cuts.

    Args:
        sample_rate: audio of another rate is resampled; channels are averaged.
        tokenizer: the fingerprint that token alignments must have; None takes them as they are, where all cuts have them.
        augmentation: is given a generator that depends on ``seed`` and the cut's id alone.

    Raises InputError for audio that cannot be read, and for missing or foreign alignments when ``tokenizer`` is given.
    """
    audio = []
    for cut in cuts:
        samples = torch.from_numpy(load_audio(cut, sample_rate))
        if augmentation is not None:
            samples = augmentation(samples, sample_rate, np.random.default_rng([*seed, zlib.crc32(cut.id.encode())]))
        audio.append(samples)
    lens = torch.tensor([len(a) for a in audio], dtype=torch.int64)
    wav = torch.zeros(len(audio), int(lens.max()))
    for row, samples in enumerate(audio):
        wav[row, : len(samples)] = samples
    return Batch(
        ids=[cut.id for cut in cuts],
        wav=wav,
        wav_lens=lens,
        texts=[text_of(cut) for cut in cuts],
        alignments=_alignments(cuts, sample_rate, tokenizer),
        speakers=[speaker_of(cut) for cut in cuts],
    )


class _EpochCuts:
    """The cuts of one epoch, read anew from the manifest each time."""

    is_lazy = True

    def __init__(self, path: Path, epoch: int | None) -> None:
        self.path = path
        self.epoch = epoch

    def __iter__(self) -> Iterator[Cut]:
        for line in read_lines(self.path):
            if self.epoch is None or _epoch_of(line) == self.epoch:
                yield deserialize_item(line)


def _epoch_of(line: dict) -> int | None:  # type: ignore[type-arg]
    """The custom field ``epoch`` of a cut, or of the first track of a mix."""
    cut = line["tracks"][0]["cut"] if "tracks" in line else line
    epoch: int | None = (cut.get("custom") or {}).get("epoch")
    return epoch


class BatchSampler(Sampler[list[Cut]]):
    """Batches of cuts of like length, from batch ``start`` of the epoch on."""

    def __init__(self, cuts: CutSet, epoch: int, seed: int, max_duration: float, num_buckets: int, start: int = 0) -> None:
        self.cuts = cuts
        self.epoch = epoch
        self.seed = seed
        self.max_duration = max_duration
        self.num_buckets = num_buckets
        self.start = start

    def __iter__(self) -> Iterator[list[Cut]]:
        # one process sees every batch: what a rank or a worker gets is decided by who consumes them
        sampler = DynamicBucketingSampler(
            self.cuts,
            max_duration=self.max_duration,
            num_buckets=self.num_buckets,
            shuffle=True,
            seed=self.seed,
            world_size=1,
            rank=0,
        )
        sampler.set_epoch(self.epoch)
        for number, batch in enumerate(sampler):
            if number >= self.start:
                yield list(batch)


class _LoadBatch(Dataset[Batch]):
    """Loads what the sampler chose, here or in a worker."""

    def __init__(self, data: "TrainingData", epoch: int) -> None:
        self.sample_rate = data.sample_rate
        self.tokenizer = data.tokenizer
        self.augmentation = data.augmentation
        self.seed = (data.seed, epoch)

    def __getitem__(self, cuts: list[Cut]) -> Batch:
        return load_batch(cuts, self.sample_rate, self.tokenizer, self.augmentation, self.seed)


class TrainingData:
    """Batches of a training manifest, epoch by epoch.

    Cuts with a custom field ``epoch`` belong to that epoch alone (epoch e of the training reads epoch e modulo the
    number of those in the manifest); cuts without it belong to every epoch.

    Args:
        cuts: the manifest.
        sample_rate: of the batches.
        seed: of the order and of augmentation.
        max_duration: seconds of audio in a batch, at most.
        num_buckets: how many classes of like length there are.
        augmentation: applied to each utterance; must not move time.
        tokenizer: the fingerprint that token alignments must have; None where none are needed.
        num_workers: processes that load; 0 = the training's own. The batches are the same for any number.

    Raises InputError for a missing, broken or empty manifest.
    """

    def __init__(
        self,
        cuts: Path | str,
        sample_rate: int,
        seed: int,
        max_duration: float,
        num_buckets: int = 8,
        augmentation: Augmentation | None = None,
        tokenizer: str | None = None,
        num_workers: int = 0,
    ) -> None:
        self.path = Path(cuts)
        self.sample_rate = sample_rate
        self.seed = seed
        self.max_duration = max_duration
        self.num_buckets = num_buckets
        self.augmentation = augmentation
        self.tokenizer = tokenizer
        self.num_workers = num_workers
        found = {_epoch_of(line) for line in read_lines(self.path)}
        if not found:
            raise InputError(f"manifest {self.path} holds no cuts: make it again")
        if None in found and len(found) > 1:
            raise InputError(f"manifest {self.path} mixes cuts with and without a custom field 'epoch': give it to all or to none")
        self.epochs: list[int] = sorted(e for e in found if e is not None)
        self._counts: dict[int, int] = {}

    def _sampler(self, epoch: int, start: int = 0) -> BatchSampler:
        stored = self.epochs[epoch % len(self.epochs)] if self.epochs else None
        return BatchSampler(CutSet(_EpochCuts(self.path, stored)), epoch, self.seed, self.max_duration, self.num_buckets, start)

    def batches(self, epoch: int) -> int:
        """How many batches an epoch has. Counted without loading audio, once."""
        if epoch not in self._counts:
            self._counts[epoch] = sum(1 for _ in self._sampler(epoch))
        return self._counts[epoch]

    def loader(self, epoch: int, start: int = 0) -> DataLoader[Batch]:
        """The batches of an epoch from number ``start`` on; those before are not loaded."""
        return DataLoader(_LoadBatch(self, epoch), sampler=self._sampler(epoch, start), batch_size=None, num_workers=self.num_workers)
