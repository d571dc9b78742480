"""How long tokens last, measured on aligned cuts: a streaming system knows when a token ended, not when it began."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reallm.registry import spec_of
from reallm.types import Alignment, Seconds

if TYPE_CHECKING:
    from lhotse.cut import Cut

FEWEST = 8  # occurrences of a token that speak for it; rarer ones get the duration of all
UTTERANCES = 10_000  # enough for a quartile, and soon read

logger = logging.getLogger(__name__)


def token_durations(alignments: Iterable[Alignment], vocab_size: int, period_samples: int) -> list[Seconds] | None:
    """Seconds from the start of each of V tokens to the end of the token period that it ended in; None without alignments.

    A CTC teacher hears a token some 100 ms after its onset and gives it the frames of its peak, so the aligned start is no
    start. Its end is one: what follows begins there, unless there is a pause. So a token is taken to last from the end of
    the token before it to its own end, and of all its occurrences the lower quartile counts, which pauses do not reach.
    Where no token has one before it (recordings of single words) the aligned start is taken after all.
    """
    followed, first = [], []
    for alignment in alignments:
        periods = -(-alignment.end_samples // period_samples) * period_samples
        before = torch.cat([alignment.start_samples[:1], alignment.end_samples[:-1]])
        found = torch.stack([alignment.token_ids, periods - before])
        first.append(found[:, :1])
        followed.append(found[:, 1:])
        rate = alignment.sample_rate
    measured = next((f for f in (torch.cat(found, dim=1) for found in (followed, first) if found) if f.numel()), None)
    if measured is None:
        return None
    token_ids, samples = measured
    samples = samples.double().clamp(min=1)
    every = samples.quantile(0.25)
    own = samples[token_ids.argsort()].split(token_ids.bincount(minlength=vocab_size).tolist())
    return [round(float(s.quantile(0.25) if s.numel() >= FEWEST else every) / rate, 4) for s in own]


def spread_cuts(manifest: Path, most: int = UTTERANCES) -> Iterator[Cut]:
    """Up to ``most`` cuts from all over a manifest: the first ones of a long one are those of a few speakers."""
    from lhotse.serialization import deserialize_item

    from reallm.data.cuts import read_lines, read_raw_lines

    step = -(-sum(1 for _ in read_raw_lines(manifest)) // most)
    return map(deserialize_item, islice(read_lines(manifest), 0, None, max(1, step)))


def with_token_durations(system: Any, manifest: Path) -> Any:
    """``system`` built again with ``token_durations``, the same weights in it, where it takes them and the cuts are its own.

    Args:
        system: in evaluation mode. One that takes no token durations, or was given some, is returned as it is.
        manifest: the cuts that it was trained on, aligned with its tokenizer.
    """
    from reallm.data.alignments import token_alignment, token_meta

    spec = spec_of(system)
    if "token_durations" not in inspect.signature(type(system)).parameters or spec.kwargs.get("token_durations") is not None:
        return system
    cuts = spread_cuts(manifest) if manifest.is_file() else ()
    own = (cut for cut in cuts if (token_meta(cut) or {}).get("tokenizer") == system.tokenizer.fingerprint)
    found = (alignment for cut in own if (alignment := token_alignment(cut, system.sample_rate)) is not None)
    durations = token_durations(found, system.tokenizer.vocab_size, system.period_samples)
    if durations is None:
        logger.warning("no aligned cuts of this system in %s: its words will begin one token period before they end", manifest)
        return system
    told = type(system)(**{**spec.kwargs, "token_durations": durations})
    told.load_state_dict(system.state_dict())
    return told.eval()
