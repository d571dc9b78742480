"""What a system holds before the first update: weights of another one (fine-tuning, a teacher's encoder), feature statistics."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reallm.bundle import DESCRIPTION, WEIGHTS, refuse_pickles
from reallm.errors import InputError, nearest
from reallm.training.batches import TrainingSource
from reallm.training.checkpoints import load_weights
from reallm.training.randomness import seed_position

STATISTICS_UTTERANCES = 400

logger = logging.getLogger(__name__)


@runtime_checkable
class FittedFrontend(Protocol):
    """A frontend with stored statistics of its features."""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Measure and store them over (wav (B, S), lens (B,)); returns the number of frames."""


@runtime_checkable
class StoredSource(Protocol):
    """A source whose batches may hold stored features in place of audio."""

    def with_audio(self) -> TrainingSource:
        """The same batches, with audio."""


def _part(name: str) -> str:
    return name.split(".")[0]


@dataclass(frozen=True)
class Initialization:
    """Which weights were taken over."""

    matched: list[str]
    absent: list[str]  # the other has none of that name
    reshaped: list[str]  # the other's has another shape
    shared: list[str]  # parts, such as ``encoder``, that both have

    def _counts(self) -> tuple[Counter[str], Counter[str]]:
        """Of each part, weights that were taken over, and all."""
        taken = Counter(_part(name) for name in self.matched)
        return taken, taken + Counter(_part(name) for name in [*self.absent, *self.reshaped])

    def unlike(self) -> str:
        """The parts that both have, but of whose weights less than half were taken over, and why; empty where there is none."""
        taken, total = self._counts()
        absent, reshaped = (Counter(map(_part, names)) for names in (self.absent, self.reshaped))

        def why(part: str) -> str:
            reasons = ((reshaped, "of another shape"), (absent, "absent from --init"))
            return ", ".join([f"{taken[part]} of {total[part]}", *(f"{count[part]} {what}" for count, what in reasons if count[part])])

        return "; ".join(f"{part} ({why(part)})" for part in self.shared if 2 * taken[part] < total[part])

    def __str__(self) -> str:
        """One line: how many of each part of the system."""
        taken, total = self._counts()
        parts = ", ".join(f"{part} {taken[part]} of {total[part]}" for part in total)
        shapes = f"; another shape: {', '.join(self.reshaped)}" if self.reshaped else ""
        return f"weights taken over: {parts}{shapes}"

    def has_all_of(self, part: str) -> bool:
        """Whether all weights of a part of the system, such as ``frontend``, were taken over."""
        return not any(_part(name) == part for name in [*self.absent, *self.reshaped])


def stored_weights(path: Path, average: int | None = None) -> dict[str, Tensor]:
    """The weights of a bundle, or those of an experiment, averaged over its last ``average`` checkpoints (None = as it says itself).

    Raises InputError for any other folder, and for weights that are missing or damaged.
    """
    if (path / DESCRIPTION).is_file():
        if not (path / WEIGHTS).is_file():
            raise InputError(f"bundle {path} lacks {WEIGHTS}: export it again")
        refuse_pickles(path)
        try:
            return load_file(path / WEIGHTS)
        except SafetensorError as error:
            raise InputError(f"bundle {path}: {WEIGHTS} is damaged ({error}): copy or export it again") from None
    if (path / "checkpoints").is_dir():
        return load_weights(path, average)
    if (path / "bundle" / DESCRIPTION).is_file():
        return stored_weights(path / "bundle")
    raise InputError(f"{path} is neither a bundle (no {DESCRIPTION}) nor an experiment (no checkpoints/): name one of them")


def parts_of(weights: dict[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
    """The weights of these parts, such as ``encoder``; no ``parts``: all.

    Raises InputError for a part that has none.
    """
    have = sorted({_part(name) for name in weights})
    for part in parts:
        if part not in have:
            raise InputError(f"--init-part '{part}'{nearest(part, have)}: --init has {', '.join(have)}")
    return {name: weight for name, weight in weights.items() if not parts or _part(name) in parts}


def fitting(system: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the system's weights that have one of that name and shape among ``weights``."""
    return [name for name, own in system.state_dict().items() if name in weights and weights[name].shape == own.shape]


def take_weights(system: nn.Module, weights: dict[str, Tensor]) -> Initialization:
    """Copy into ``system`` what has the same name and shape.

    Raises InputError when nothing has.
    """
    state = system.state_dict()
    found = Initialization(
        matched=fitting(system, weights),
        absent=[name for name in state if name not in weights],
        reshaped=[name for name in state if name in weights and weights[name].shape != state[name].shape],
        shared=sorted({_part(name) for name in state} & {_part(name) for name in weights}),
    )
    if not found.matched:
        raise InputError(
            f"no weight has the name and shape of one of the system's, such as '{next(iter(state))}': --init needs a model with like parts"
        )
    system.load_state_dict({name: weights[name] for name in found.matched}, strict=False)
    return found


def fit_frontend(system: Any, source: TrainingSource, seed: int, utterances: int = STATISTICS_UTTERANCES) -> int:
    """Measure the feature statistics over the first utterances of the first epoch; returns the number of frames.

    A frontend without statistics is left alone: 0.
    """
    frontend = getattr(system, "frontend", None)
    if not isinstance(frontend, FittedFrontend):
        return 0
    seed_position(seed, "statistics")
    if isinstance(source, StoredSource):
        source = source.with_audio()

    def audio() -> Iterator[tuple[Tensor, Tensor]]:
        count = 0
        for batch in islice(source.loader(1, 0), source.batches(1)):
            yield batch.wav, batch.wav_lens
            count += len(batch.ids)
            if count >= utterances:
                return

    return frontend.fit(audio())
