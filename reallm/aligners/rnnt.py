"""Forced alignment with the scores of a transducer (Graves 2012, arXiv 1211.3711). Legend of letters: reallm/types.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.backend import BackendAligner, find_backend
from reallm.aligners.path import check_tokens, pad_tokens
from reallm.protocols import AlignmentFailure
from reallm.registry import register
from reallm.streaming.context import length_mask
from reallm.types import Batch


@dataclass(frozen=True)
class RNNTPath:
    """One path through the lattice. Token u is said in frame begin_frames[u] alone, perhaps with others."""

    begin_frames: Tensor  # (U,) int64
    scores: Tensor  # (U,) float64, log-probability of each token where it is said
    score: float  # of all tokens and BLANKs

    @property
    def end_frames(self) -> Tensor:
        """(U,) int64, exclusive."""
        return self.begin_frames + 1


def align_lattice(
    blank: Tensor, token: Tensor, lens: Tensor, token_lens: Tensor, backend: str = "auto"
) -> list[RNNTPath | AlignmentFailure]:
    """The most probable path of each utterance through its lattice.

    Args:
        blank: (B, N, U + 1) log-probabilities of BLANK in frame n after u tokens; any float type and device.
        token: (B, N, U) log-probabilities of token u + 1 there.
        lens: (B,) int64 frames.
        token_lens: (B,) int64.
        backend: "k2", "torch", or "auto": k2 where there is one.

    Returns:
        A path an utterance, or why it has none: no tokens, no frames, scores that are NaN or leave no path possible.

    Raises InputError for an unknown or absent backend.
    """
    engine = find_backend(backend)
    lens, token_lens = lens.cpu(), token_lens.cpu()
    paths: list[RNNTPath | AlignmentFailure] = [AlignmentFailure(reason or "") for reason in _why_not(blank, token, lens, token_lens)]
    rows = torch.tensor(
        [row for row, path in enumerate(paths) if isinstance(path, AlignmentFailure) and not path.reason], dtype=torch.int64
    )
    if rows.numel():
        lens, token_lens = lens[rows], token_lens[rows]
        most, size = int(token_lens.max()), int(lens.max())
        chosen = rows.to(blank.device)
        blank, token = blank[chosen, :size, : most + 1], token[chosen, :size, :most]
        frames = engine.emissions(blank, token, lens, token_lens)
        for row, path in zip(rows.tolist(), _paths(blank, token, frames, lens, token_lens), strict=True):
            paths[row] = path
    return paths


def _why_not(blank: Tensor, token: Tensor, lens: Tensor, token_lens: Tensor) -> list[str | None]:
    """For each row, why it has no path, as far as that is known before searching; None where it may have one."""
    heard = length_mask(lens, blank.size(1)).unsqueeze(2).to(blank.device)
    broken = torch.zeros(lens.numel(), dtype=torch.bool, device=blank.device)
    for scores, states in ((blank, token_lens + 1), (token, token_lens)):
        said = length_mask(states, scores.size(2)).unsqueeze(1).to(blank.device)
        broken |= (scores.isnan() & heard & said).flatten(1).any(1)

    def reason(frames: int, count: int, nan: bool) -> str | None:
        if count == 0:
            return "empty transcript"
        if frames == 0:
            return "too short: no frames"
        return "the teacher's scores hold NaN" if nan else None

    return [reason(*row) for row in zip(lens.tolist(), token_lens.tolist(), broken.tolist(), strict=True)]


def _paths(blank: Tensor, token: Tensor, frames: Tensor, lens: Tensor, token_lens: Tensor) -> list[RNNTPath | AlignmentFailure]:
    """Scores of the paths that a backend found, whatever precision it searched in: totals are float64.

    Args:
        frames: (B, U) int64 on the CPU, -1 from each row's last token on, and everywhere in a row without a path.
    """
    where = frames.to(token.device)
    written = where >= 0
    spoken = token.gather(1, where.clamp(min=0).unsqueeze(1)).squeeze(1).double().masked_fill(~written, 0)
    # Tokens said up to and with each frame: BLANK follows them.
    heard = torch.zeros(*blank.shape[:2], dtype=torch.int64, device=blank.device)
    before = heard.scatter_add(1, where.clamp(min=0), written.long()).cumsum(1)
    waited = blank.gather(2, before.unsqueeze(2)).squeeze(2).double()
    waited = waited.masked_fill(~length_mask(lens, blank.size(1)).to(blank.device), 0)
    totals = (spoken.sum(1) + waited.sum(1)).tolist()
    scores = spoken.cpu()

    def path(row: int) -> RNNTPath | AlignmentFailure:
        count = int(token_lens[row])
        if int(frames[row, 0]) < 0 or totals[row] == -torch.inf:
            return AlignmentFailure("no path has a probability above zero")
        return RNNTPath(frames[row, :count], scores[row, :count], totals[row])

    return [path(row) for row in range(len(totals))]


@register("aligner", "rnnt")
class RNNTAligner(BackendAligner):
    """Token times from a transducer: a token begins and ends with the encoder frame in which the best path says it.

    Args:
        backend: "k2", "torch", or "auto": k2 where there is one, else torch with one warning. Both give the same path.

    The teacher has ``lattice_scores(batch, token_ids) -> blank (B, N, U + 1), token (B, N, U), lens (B,)``, ``period_samples`` per
    encoder frame and ``sample_rate``. Several tokens may share a frame, and what is said after the end of the audio counts as
    said in its last frame. A transducer is free to say a token long after it was spoken, so the times are those of emission, not
    the word's acoustic ends.
    """

    scores, needs = "lattice_scores", ("lattice", "transducer")

    def paths(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[RNNTPath | AlignmentFailure]:
        """See :func:`align_lattice`."""
        check_tokens(token_ids, int(teacher.tokenizer.vocab_size))
        _, token_lens = pad_tokens(token_ids)
        blank, token, lens = teacher.lattice_scores(batch, token_ids)
        return align_lattice(blank, token, lens, token_lens, self.backend)
