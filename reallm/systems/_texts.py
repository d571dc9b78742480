"""Texts as training targets."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.protocols import Tokenizer
from reallm.streaming.context import length_mask

NO_TARGET = -100


def padded_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids (B, U) and lens (B,), on the CPU. Raises InputError for characters the tokenizer does not know."""
    return padded([torch.tensor(tokenizer.encode(text), dtype=torch.int64) for text in texts])


def padded(token_ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The token ids (U_b,) of each text as (B, U), padded with 0, and lens (B,)."""
    return nn.utils.rnn.pad_sequence(list(token_ids), batch_first=True), torch.tensor([len(t) for t in token_ids])


def between_ends(token_ids: Tensor, lens: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    """token_ids (B, U), lens (B,) → inputs (B, U + 1): the end token, then the text; and targets (B, U + 1): the text, then the end."""
    inputs = F.pad(token_ids, (1, 0), value=end_id)
    targets = F.pad(token_ids, (0, 1)).scatter(1, lens.unsqueeze(1), end_id)
    return inputs, targets.masked_fill(~length_mask(lens + 1, targets.size(1)), NO_TARGET)


def ctc_output(encoder_dim: int, labels: int, weight: float) -> nn.Linear | None:
    """What a share ``weight`` of CTC in a training loss is computed from: encoder frames (…, D) → logits of labels, BLANK last; None for 0.

    Raises InputError for a weight that is no such share.
    """
    if not 0 <= weight < 1:
        raise InputError(f"ctc_weight {weight}: choose a share from 0 up to, but not, 1; for CTC alone there is the system ctc")
    return nn.Linear(encoder_dim, labels) if weight else None


def ctc_loss(log_probs: Tensor, lens: Tensor, token_ids: Tensor, token_lens: Tensor) -> Tensor:
    """The CTC loss (Graves et al. 2006), a sum over the texts: a system divides it by the ``targets`` of its own loss.

    log_probs (B, N, V), BLANK last, lens (B,); token_ids (B, U), token_lens (B,).
    """
    targets, blank_id = token_ids.to(log_probs.device), log_probs.size(2) - 1
    losses = F.ctc_loss(log_probs.transpose(0, 1), targets, lens, token_lens, blank_id, reduction="none", zero_infinity=True)
    return losses.sum()
