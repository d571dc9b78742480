"""Forced alignment with the scores of a CTC model (Graves et al., ICML 2006). Legend of letters: reallm/types.py."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.backend import BackendAligner, find_backend
from reallm.aligners.path import CTCPath, pad_tokens, paths_from_labels, why_not
from reallm.protocols import AlignmentFailure
from reallm.registry import register
from reallm.types import Batch


def align_scores(log_probs: Tensor, lens: Tensor, token_ids: Sequence[Tensor], backend: str = "auto") -> list[CTCPath | AlignmentFailure]:
    """The most probable CTC path of each utterance that spells its tokens.

    Args:
        log_probs: (B, N, V), blank last; any float type and device.
        lens: (B,) int64 frames.
        token_ids: B tensors (U_b,) int64.
        backend: "k2", "torch", or "auto": k2 where there is one.

    Returns:
        A path an utterance, or why it has none: no tokens, fewer frames than tokens and blanks between equal ones, scores
        that are NaN or leave no path possible.

    Raises InputError for an unknown or absent backend and for token ids that are not labels of the scores.
    """
    engine = find_backend(backend)
    tokens, token_lens = pad_tokens(token_ids)
    lens = lens.cpu()
    reasons = why_not(log_probs, lens, tokens, token_lens)
    rows = torch.tensor([row for row, reason in enumerate(reasons) if reason is None], dtype=torch.int64)
    paths: list[CTCPath | AlignmentFailure] = [AlignmentFailure(reason or "") for reason in reasons]
    if rows.numel():
        scores = log_probs.index_select(0, rows.to(log_probs.device))[:, : int(lens[rows].max())]
        labels = engine.labels(scores, lens[rows], tokens[rows][:, : int(token_lens[rows].max())], token_lens[rows])
        for row, path in zip(rows.tolist(), paths_from_labels(scores, labels, token_lens[rows]), strict=True):
            paths[row] = path
    return paths


@register("aligner", "ctc")
class CTCAligner(BackendAligner):
    """Token times from a CTC teacher: a token lasts from the begin of the first frame that emits it to the end of the last.

    Args:
        backend: "k2", "torch", or "auto": k2 where there is one, else torch with one warning. Both give the same path.

    The teacher has ``log_probs(batch) -> (B, N, V), lens (B,)`` with blank last, ``period_samples`` per encoder frame and
    ``sample_rate``. What it emits after the end of the audio counts as the audio's last frame. CTC models emit late and
    briefly, so the times are those of emission, not the word's acoustic ends.
    """

    scores, needs = "log_probs", ("CTC scores", "ctc")

    def paths(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[CTCPath | AlignmentFailure]:
        """See :func:`align_scores`."""
        log_probs, lens = teacher.log_probs(batch)
        return align_scores(log_probs, lens, token_ids, self.backend)
