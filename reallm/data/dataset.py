"""Batches for training and scoring, from manifests.

The order of batches and all randomness are functions of (seed, epoch), so that a run that goes on from batch n sees what
it would have seen; the batches before n are not loaded.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from torch.utils.data import DataLoader, Dataset

from reallm.data.alignments import TOKEN, token_alignment, token_meta
from reallm.data.augmentation import Augmentation
from reallm.data.cuts import load_audio, read_lines, read_raw_lines, speaker_of, supervisions_of, text_of
from reallm.data.features import stored_features
from reallm.data.sampler import BatchSampler, duration_of, schedule
from reallm.errors import InputError, at_least
from reallm.protocols import Tokenizer
from reallm.types import Alignment, Batch


def _refuse_foreign(meta: dict[str, Any] | None, tokenizer: str | None, name: str) -> None:
    """Raises InputError where an alignment by ``tokenizer`` (None: no alignment) is needed and ``meta`` is not one's."""
    if tokenizer is None:
        return
    if meta is None:
        raise InputError(f"cut '{name}' has no token alignment: run `reallm align` on its manifest first")
    if meta["tokenizer"] != tokenizer:
        raise InputError(f"cut '{name}' was aligned with tokenizer {meta['tokenizer']}, not with {tokenizer}: run `reallm align` again")


def _refuse_changed(supervision: dict[str, Any], name: str, tokenizer: Tokenizer) -> None:
    """Raises InputError where the text of an aligned supervision is not the one that was aligned, as ``tokenizer`` writes it.

    White space is left out: merged supervisions have none between the last token of one and the first of the next.
    """
    text = supervision.get("text") or ""
    aligned = "".join(item[0] for item in (supervision.get("alignment") or {}).get(TOKEN, ()))
    if _without_spaces(text) == _without_spaces(aligned):
        return
    try:  # a vocabulary may normalize texts
        written = tokenizer.decode(tokenizer.encode(text))
    except InputError:
        written = text  # with characters that no alignment of this tokenizer can have
    if _without_spaces(written) != _without_spaces(aligned):
        raise InputError(f"cut '{name}' says {text!r}, and was aligned as {aligned.strip()!r}: run `reallm align` on its manifest again")


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _alignments(cuts: Sequence[Cut], sample_rate: int, tokenizer: str | None) -> list[Alignment] | None:
    found = []
    for cut in cuts:
        _refuse_foreign(token_meta(cut), tokenizer, cut.id)
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
    features: str = "online",
) -> Batch:
    """The audio or stored features, texts and token alignments of B cuts.

    Args:
        sample_rate: audio of another rate is resampled; channels are averaged.
        tokenizer: the fingerprint that token alignments must have; None takes them as they are, where all cuts have them.
        augmentation: is given a generator that depends on ``seed`` and the cut's id alone.
        features: "stored": those of `reallm data features` are read, and no audio; "online": the system makes its own.

    Raises InputError for audio that cannot be read, for cuts without stored features when these are asked for, and for missing or
    foreign alignments when ``tokenizer`` is given.
    """
    if features == "stored":
        feats, feats_by = stored_features(cuts)
        batch = without_audio(cuts, sample_rate)
        alignments, speakers = _alignments(cuts, sample_rate, tokenizer), [speaker_of(cut) for cut in cuts]
        return replace(batch, alignments=alignments, speakers=speakers, feats=feats, feats_by=feats_by)
    audio = []
    for cut in cuts:
        samples = torch.tensor(load_audio(cut, sample_rate))  # a copy: the audio may be cached
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


def without_audio(cuts: Sequence[Cut], sample_rate: int) -> Batch:
    """The ids, texts and lengths of B cuts, in a batch whose audio was not read."""
    lens = torch.tensor([round(cut.duration * sample_rate) for cut in cuts], dtype=torch.int64)
    return Batch([cut.id for cut in cuts], torch.zeros(len(cuts), 0), lens, [text_of(cut) for cut in cuts])


def _epoch_of(line: dict[str, Any]) -> int | None:
    """The custom field ``epoch`` of a cut, or of the first track of a mix."""
    cut = line["tracks"][0]["cut"] if "tracks" in line else line
    epoch: int | None = (cut.get("custom") or {}).get("epoch")
    return epoch


class _LoadBatch(Dataset[Batch | InputError]):
    """Loads what the sampler chose, here or in a worker, from where InputErrors are returned: torch would raise others, with tracebacks."""

    def __init__(self, data: "TrainingData", epoch: int) -> None:
        self.sample_rate = data.sample_rate
        self.tokenizer = data.tokenizer
        self.augmentation = data.augmentation
        self.features = data.features
        self.seed = (data.seed, epoch)

    def __getitem__(self, lines: list[bytes]) -> Batch | InputError:
        cuts = [deserialize_item(json.loads(line)) for line in lines]
        try:
            return load_batch(cuts, self.sample_rate, self.tokenizer, self.augmentation, self.seed, self.features)
        except InputError as error:
            return error


class _Batches(DataLoader[Batch]):
    """Raises in this process the InputErrors that came in place of batches."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch


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
        features: "online": batches hold audio; "stored": the features of `reallm data features`, which rule out augmentation of the audio.

    Raises InputError for a missing, broken or empty manifest, and for a number out of its range.
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
        features: str = "online",
    ) -> None:
        if features not in ("online", "stored"):
            raise InputError(f"features '{features}': online or stored")
        if features == "stored" and augmentation is not None:
            raise InputError("stored features cannot be augmented as audio: take augmentation out, or features: online")
        at_least(1, num_buckets=num_buckets)
        at_least(0, num_workers=num_workers)
        if not max_duration > 0:
            raise InputError(f"max_duration is {max_duration}: give the seconds of audio in a batch, above 0")
        self.path = Path(cuts)
        self.sample_rate = sample_rate
        self.seed = seed
        self.max_duration = max_duration
        self.num_buckets = num_buckets
        self.augmentation = augmentation
        self.tokenizer = tokenizer
        self.num_workers = num_workers
        self.features = features
        self._numbers: dict[int | None, list[int]] = {}  # stored epoch → numbers of its lines
        self._durations: dict[int | None, list[float]] = {}
        for number, line in enumerate(read_lines(self.path)):
            epoch = _epoch_of(line)
            self._numbers.setdefault(epoch, []).append(number)
            self._durations.setdefault(epoch, []).append(duration_of(line))
        if not self._numbers:
            raise InputError(f"manifest {self.path} holds no cuts: make it again")
        if None in self._numbers and len(self._numbers) > 1:
            raise InputError(f"manifest {self.path} mixes cuts with and without a custom field 'epoch': give it to all or to none")
        self._schedules: dict[int, list[list[int]]] = {}

    def with_audio(self) -> "TrainingData":
        """The same batches, with audio."""
        other = copy(self)
        other.features = "online"
        return other

    def transcripts(self, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
        """Id and text of every supervision, without audio.

        Raises InputError for a supervision without the alignments that training needs, and for one whose text was changed since it was
        aligned with ``tokenizer``.
        """
        for line in read_lines(self.path):
            for supervision in supervisions_of(line):
                _refuse_foreign((supervision.get("custom") or {}).get("token_alignment"), self.tokenizer, line["id"])
                if self.tokenizer is not None:
                    _refuse_changed(supervision, line["id"], tokenizer)
                yield line["id"], supervision.get("text") or ""

    def _stored(self, epoch: int) -> int | None:
        """The epoch of the manifest that an epoch of the training reads."""
        stored = sorted(self._numbers, key=lambda e: -1 if e is None else e)
        return stored[epoch % len(stored)]

    def _schedule(self, epoch: int) -> list[list[int]]:
        if epoch not in self._schedules:
            durations = self._durations[self._stored(epoch)]
            self._schedules[epoch] = schedule(durations, epoch, self.seed, self.max_duration, self.num_buckets)
        return self._schedules[epoch]

    def batches(self, epoch: int) -> int:
        """How many batches an epoch has."""
        return len(self._schedule(epoch))

    def loader(self, epoch: int, start: int = 0, step: int = 1) -> DataLoader[Batch]:
        """Every ``step``-th batch of an epoch from number ``start`` on; the others are not loaded."""
        wanted = set(self._numbers[self._stored(epoch)])
        lines = [line for number, line in enumerate(read_raw_lines(self.path)) if number in wanted]
        if len(lines) != len(wanted):
            raise InputError(f"manifest {self.path} was changed while it was in use: start again")
        sampler = BatchSampler(self._schedule(epoch), lines, start, step)
        batches: Any = _LoadBatch(self, epoch)  # or what went wrong in place of one, which _Batches raises
        return _Batches(batches, sampler=sampler, batch_size=None, num_workers=self.num_workers)
