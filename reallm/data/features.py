"""Features that are computed once and stored: those of a registered frontend, before normalization, by lhotse's array storage.

``reallm data features`` writes them, a frontend's ``from_stored`` goes on from there. What changes the audio while training (noise, vocal
tract lengths) is then impossible; masks on the features are not.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import NumpyFilesWriter
from lhotse.array import Array
from lhotse.cut import Cut, MixedCut
from lhotse.serialization import deserialize_item
from lhotse.utils import fastcopy
from torch import Tensor

from reallm.data.cuts import load_audio, to_plain
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.jobs import ALONE, Workers, in_shards

FEATURES, FEATURES_BY = "stored_features", "stored_features_by"  # custom fields of a cut
SHARD = 100  # cuts that a process takes at a time


def frontend_of(conf: Path) -> Any:
    """The frontend of the configuration's system, in eval mode. Raises InputError for a frontend that cannot store its features."""
    from hyperpyyaml import load_hyperpyyaml
    from ruamel.yaml import YAML

    from reallm.config import load

    tree = YAML().load(load(conf, []).text)
    text = StringIO()
    YAML().dump({"frontend": tree["system"]["frontend"]}, text)
    frontend = load_hyperpyyaml(text.getvalue())["frontend"]
    if not hasattr(frontend, "store"):
        raise InputError(f"the frontend of {conf} cannot store its features: compute them online")
    return frontend.eval()


def with_features(
    cuts: Sequence[Cut], frontend: Any, folder: Path, workers: Workers = ALONE, tick: Callable[[int], None] = lambda cuts: None
) -> Iterator[Cut]:
    """The cuts with their features, one file a cut below ``folder``, as 16-bit floats; a file that is there and whole is taken.

    Args:
        workers: who computes; they write the files, so that those of a cluster must see ``folder``.
        tick: is told the cuts that were just done.

    Raises InputError for a mix of cuts, which has no place for them, and as :func:`reallm.jobs.in_shards`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".parts.", dir=folder) as parts:
        work = ShardFeatures(frontend, (folder / frontend.fingerprint).resolve())
        for shard in in_shards(work, cuts, SHARD, Path(parts), {}, workers, tick):
            yield from map(deserialize_item, shard)


@dataclass(frozen=True)
class ShardFeatures:
    """Stores the features of cuts below ``place``, for :func:`reallm.jobs.in_shards`: cuts → cuts, for JSON."""

    frontend: Any
    place: Path

    def __call__(self, cuts: Sequence[Cut], tick: Callable[[int], None]) -> list[dict[str, Any]]:
        """Store those of one shard."""
        found = []
        for cut in cuts:
            found.append(to_plain(_with_features(cut, self.frontend, self.place)))
            tick(1)
        return found


def _with_features(cut: Cut, frontend: Any, place: Path) -> Cut:
    if isinstance(cut, MixedCut):
        raise InputError(f"cut '{cut.id}' is a mix, which has no stored features: compute them online")
    samples = round(cut.duration * frontend.sample_rate)
    shape = [-(-samples // frontend.frame_shift) + frontend.tail, frontend.output_dim]
    key = f"{cut.id}.npy"
    file = place / key[:3] / key
    if not _whole(file, shape):
        feats = frontend.store(torch.tensor(load_audio(cut, frontend.sample_rate))).numpy().astype(np.float16)
        with atomic_write(file, "wb") as sink:
            np.save(sink, feats)
    array = Array(NumpyFilesWriter.name, str(place), f"{key[:3]}/{key}", shape)
    return fastcopy(cut, custom={**(cut.custom or {}), FEATURES: array, FEATURES_BY: frontend.fingerprint})


def _whole(file: Path, shape: Sequence[int]) -> bool:
    try:
        return list(np.load(file, mmap_mode="r").shape) == list(shape)
    except (OSError, ValueError):
        return False


def stored_features(cuts: Sequence[Cut]) -> tuple[Tensor, str]:
    """(B, T, F) float32 of B cuts, zeros after each one's end; and the fingerprint of the frontend.

    Raises InputError for a cut without them, for cuts of different frontends, and for a file that cannot be read.
    """
    rows, made_by = [], set()
    for cut in cuts:
        custom = getattr(cut, "custom", None) or {}
        if FEATURES not in custom:
            raise InputError(f"cut '{cut.id}' has no stored features: run `reallm data features` on its manifest, or compute them online")
        try:
            rows.append(torch.from_numpy(custom[FEATURES].load().astype(np.float32)))
        except (OSError, ValueError) as error:
            raise InputError(f"cut '{cut.id}': its stored features cannot be read ({error}): run `reallm data features` again") from None
        made_by.add(custom[FEATURES_BY])
    if len(made_by) > 1:
        raise InputError(f"stored features of several frontends, {', '.join(sorted(made_by))}: run `reallm data features` again")
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), made_by.pop()
