"""Alignments whose times are uncertain: what a model trains on that is to bear answers which came too early or too late."""

from dataclasses import replace

import torch

from reallm.interleavers._due import due_embeddings
from reallm.types import Alignment


def jittered(alignment: Alignment, jitter: int, speech_len: int, delay: int, period_samples: int) -> Alignment:
    """The same tokens in the same order, the end of each moved by a whole number of token periods from -``jitter`` to ``jitter``.

    One is drawn for each token, evenly, and the ends are sorted, after which still none is more than ``jitter`` periods from its own. So a
    token is due at the earliest ``jitter`` - ``delay`` token periods before the one that it ends in, and never before the first speech
    embedding and its delay. It is moved on no further than leaves each token after it a speech embedding of its own, where
    it was not as late as that itself: whatever could be laid out can be.

    Args:
        jitter: J. What is drawn comes from torch's generator for the CPU, which training seeds anew for each batch.
        speech_len: M, speech embeddings of the utterance, its flush included.
        delay: token periods between the end of a token and the speech embedding that it answers.
        period_samples: samples per speech embedding.
    """
    ends, tokens = alignment.end_samples, alignment.token_ids.numel()
    moved = (ends + period_samples * torch.randint(-jitter, jitter + 1, ends.shape)).sort().values
    latest = torch.maximum(due_embeddings(alignment, period_samples, delay), speech_len - tokens + torch.arange(tokens))
    return replace(alignment, end_samples=torch.minimum(moved, (latest + 1 - delay) * period_samples))
