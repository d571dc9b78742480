"""The best CTC path of an utterance, as frame labels and as token times; what all aligners make of frames.

Blank is the last of the V labels. Legend of letters: reallm/types.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reallm.errors import InputError
from reallm.protocols import AlignmentFailure
from reallm.streaming.context import length_mask
from reallm.types import Alignment

NO_LABEL = -1


@dataclass(frozen=True)
class CTCPath:
    """One path through the CTC lattice of Graves et al. (ICML 2006, section 4.1).

    Token u is emitted in the frames [begin_frames[u], end_frames[u]): all frames of the path that carry its label.
    """

    begin_frames: Tensor  # (U,) int64
    end_frames: Tensor  # (U,) int64, exclusive
    scores: Tensor  # (U,) float64, sum of the log-probabilities of the token's frames
    score: float  # sum over all frames, blanks included
    labels: Tensor  # (N,) int64, one a frame


def in_samples(path: Any, token_ids: Tensor, samples: int, teacher: Any) -> Alignment:
    """The alignment of an utterance of ``samples`` to a path of its U tokens.

    Args:
        path: with begin_frames, end_frames and scores (U,), and score.
        teacher: with period_samples a frame, and sample_rate.

    The path may cover zeros after the audio, which the teacher is given to finish with. Nothing was said there: tokens emitted
    in them count as emitted in the last frame of the audio.
    """
    period = int(teacher.period_samples)
    starts = (path.begin_frames * period).clamp(max=(samples - 1) // period * period)
    ends = (path.end_frames * period).clamp(max=samples)
    ids = torch.as_tensor(token_ids, dtype=torch.int64)
    return Alignment(ids, starts, ends, path.scores, int(teacher.sample_rate), path.score)


def pad_tokens(token_ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tokens (B, U) int64 padded with -1, and their lens (B,)."""
    rows = [torch.as_tensor(row, dtype=torch.int64).reshape(-1).cpu() for row in token_ids]
    lens = torch.tensor([row.numel() for row in rows], dtype=torch.int64)
    return pad_sequence(rows, batch_first=True, padding_value=NO_LABEL) if rows else torch.zeros(0, 0, dtype=torch.int64), lens


def frames_needed(tokens: Tensor, token_lens: Tensor) -> Tensor:
    """(B,) frames that the shortest path takes: one a token, one a blank between two equal tokens."""
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & (tokens[:, 1:] != NO_LABEL)
    return token_lens + repeats.sum(1)


def check_tokens(token_ids: Sequence[Tensor], blank: int) -> None:
    """Raises InputError for a token that is not among the labels below ``blank``."""
    highest = max((int(ids.max()) for ids in token_ids if ids.numel()), default=-1)
    if highest >= blank:
        raise InputError(f"token id {highest} is not below BLANK = {blank}: align with the teacher's own tokenizer")


def why_not(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> list[str | None]:
    """For each row, why it has no path, as far as that is known before searching; None where it may have one.

    Raises InputError for a token that is not among the labels.
    """
    blank = log_probs.size(2) - 1
    check_tokens([tokens], blank)
    needed = frames_needed(tokens, token_lens).tolist()
    valid = length_mask(lens, log_probs.size(1)).to(log_probs.device)
    broken = (log_probs.isnan().any(2) & valid).any(1).tolist()

    def reason(frames: int, count: int, need: int, nan: bool) -> str | None:
        if count == 0:
            return "empty transcript"
        if frames < need:
            return f"too short: {frames} frames, its {count} tokens need {need}"
        return "the teacher's scores hold NaN" if nan else None

    return [reason(*row) for row in zip(lens.tolist(), token_lens.tolist(), needed, broken, strict=True)]


def paths_from_labels(log_probs: Tensor, labels: Tensor, token_lens: Tensor) -> list[CTCPath | AlignmentFailure]:
    """Times and scores of the paths that a backend found, whatever precision it searched in: totals are float64.

    Args:
        log_probs: (B, N, V).
        labels: (B, N) int64, -1 from each row's length on, and everywhere in a row without a path.
        token_lens: (B,) int64.
    """
    labels = labels.to(log_probs.device)
    rows, size = labels.shape
    most = int(token_lens.max())
    frame = torch.arange(size, device=labels.device).expand(rows, size)
    valid = labels != NO_LABEL
    emits = valid & (labels != log_probs.size(2) - 1)
    before = torch.cat([labels.new_full((rows, 1), NO_LABEL), labels[:, :-1]], dim=1)
    first = emits & (labels != before)
    # Frames that emit nothing are counted in one column more, which is dropped.
    column = torch.where(emits, (first.cumsum(1) - 1).clamp(max=most), most)
    found = log_probs.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2).double().masked_fill(~valid, 0)
    scores = found.new_zeros(rows, most + 1).scatter_add(1, column, found)[:, :most].cpu()
    end = labels.new_zeros(rows, most + 1).scatter_reduce(1, column, frame + 1, "amax")[:, :most].cpu()
    begin = labels.new_full((rows, most + 1), size).scatter_reduce(1, column, frame, "amin")[:, :most].cpu()
    totals, counts, frames = found.sum(1).tolist(), first.sum(1).tolist(), valid.sum(1).tolist()
    wanted, labels = token_lens.tolist(), labels.cpu()

    def path(row: int) -> CTCPath | AlignmentFailure:
        if not frames[row] or totals[row] == -torch.inf:
            return AlignmentFailure("no path has a probability above zero")
        assert counts[row] == wanted[row], f"row {row}: the path emits {counts[row]} tokens, not {wanted[row]}"
        kept = slice(0, wanted[row])
        return CTCPath(begin[row, kept], end[row, kept], scores[row, kept], totals[row], labels[row, : frames[row]])

    return [path(row) for row in range(rows)]
