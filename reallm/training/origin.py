"""What an experiment was begun with, in EXP/origin.json, so that it does not go on with something else unnoticed."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from reallm import fingerprints
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.training.batches import ManifestSource, TrainingSource

ORIGIN_NAME = "origin.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """A file or folder, and the sha256 of what is in it."""

    path: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.path} (sha256 {self.sha256[:12]}…)"


@dataclass(frozen=True)
class Origin:
    """Where the first weights and the training data came from."""

    init: Content | None  # what --init named, by its weights
    data: Content | None  # the training manifest; None: the source has none
    processes: int = 1  # that take the batches in turns

    @classmethod
    def of(cls, init: Path | None, weights: Mapping[str, Tensor] | None, source: TrainingSource, processes: int = 1) -> "Origin":
        """Of a run with the option ``init``, whose weights are ``weights``, on ``source``."""
        return cls(
            None if init is None or weights is None else Content(str(init.resolve()), fingerprints.of_weights(weights)),
            Content(str(source.path.resolve()), fingerprints.of_file(source.path)) if isinstance(source, ManifestSource) else None,
            processes,
        )

    @classmethod
    def read(cls, exp: Path) -> "Origin | None":
        """What was recorded in the folder; None where nothing was. Raises InputError for a file that is damaged."""
        file = exp / ORIGIN_NAME
        try:
            recorded = json.loads(file.read_text(encoding="utf-8"))
            init, data = (None if recorded[key] is None else Content(**recorded[key]) for key in ("init", "data"))
            processes = int(recorded.get("processes", 1))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{file} is damaged: what {exp} was begun with is not known; name another --exp, or remove {exp}") from None
        return cls(init, data, processes)

    def write(self, exp: Path) -> None:
        """Record it, whole or not at all."""
        with atomic_write(exp / ORIGIN_NAME) as file:
            json.dump(asdict(self), file, indent=1)

    def begin(self, exp: Path) -> None:
        """Before the first checkpoint all may change. Raises InputError where an --init is left away: most likely it was forgotten."""
        before = Origin.read(exp)
        if before is not None and before.init is not None and self.init is None:
            raise InputError(
                f"{exp} was begun with --init: add --init {shlex.quote(before.init.path)}, or remove {exp} to begin without it"
            )

    def resume(self, exp: Path) -> None:
        """From a checkpoint on nothing may change but the places. Where nothing was recorded, this is, with a warning.

        Raises InputError which names what was there and what is there now.
        """
        before = Origin.read(exp)
        if before is None:
            logger.warning("%s was begun by a version that wrote no %s: taken to have begun as this command says", exp, ORIGIN_NAME)
            self.write(exp)
            return
        other = f"name another --exp, or remove {exp}"
        if before.init is not None and self.init is None:
            raise InputError(f"{exp} was begun with --init: add --init {shlex.quote(before.init.path)}, or {other}")
        if before.init is None and self.init is not None:
            raise InputError(f"{exp} was begun without --init: leave --init {shlex.quote(self.init.path)} away, or {other}")
        if before.processes != self.processes:
            raise InputError(
                f"{exp} was begun with {before.processes} processes, not with {self.processes}: go on with --devices {before.processes} "
                f"(or as many by torchrun), or {other}"
            )
        for what, then, now in (("weights", before.init, self.init), ("training data", before.data, self.data)):
            if (then and then.sha256) != (now and now.sha256):
                raise InputError(f"{exp} was begun with the {what} of {then}, not with {now}: put them back, or {other}")
