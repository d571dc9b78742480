"""The torch backend: Viterbi over the CTC lattice, in float64, for all utterances at once.

The lattice of U tokens has the 2U + 1 states blank y_1 blank y_2 … y_U blank. A path stays in its state, goes to the
next, or skips a blank between two different tokens; it begins in one of the first two states and ends in one of the
last two (Graves et al., ICML 2006, section 4.1, with max instead of the sum).
"""

import torch
from torch import Tensor

from reallm.aligners.path import NO_LABEL


@torch.no_grad()
def viterbi_labels(log_probs: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """The best path of each utterance. Among equal paths it prefers to stay, then to go on by one state.

    Args:
        log_probs: (B, N, V), blank last.
        lens: (B,) int64 frames, at least as many as the tokens need.
        tokens: (B, U) int64, padded with -1.
        token_lens: (B,) int64, at least 1.

    Returns:
        labels (B, N) int64 on the CPU, -1 from each row's length on, and everywhere in a row whose paths are all impossible.
    """
    rows, size, vocabulary = log_probs.shape
    device = log_probs.device
    lens, tokens, token_lens = lens.to(device), tokens.to(device), token_lens.to(device)
    blank = vocabulary - 1
    states = 2 * tokens.size(1) + 1
    state_labels = tokens.new_full((rows, states), blank)
    state_labels[:, 1::2] = tokens.clamp(min=0)
    may_skip = torch.zeros(rows, states, dtype=torch.bool, device=device)
    may_skip[:, 3::2] = tokens[:, 1:] != tokens[:, :-1]

    impossible = torch.full((rows, 1), -torch.inf, dtype=torch.float64, device=device)
    alpha = log_probs[:, 0].double().gather(1, state_labels)
    alpha[:, 2:] = -torch.inf
    moves = torch.zeros(size, rows, states, dtype=torch.uint8, device=device)
    for t in range(1, size):
        by_one = torch.cat([impossible, alpha[:, :-1]], dim=1)
        by_two = torch.cat([impossible, by_one[:, :-1]], dim=1).masked_fill(~may_skip, -torch.inf)
        best = torch.maximum(torch.maximum(alpha, by_one), by_two)
        move = torch.where(alpha == best, 0, torch.where(by_one == best, 1, 2))
        going = (lens > t).unsqueeze(1)
        alpha = torch.where(going, best + log_probs[:, t].double().gather(1, state_labels), alpha)
        moves[t] = torch.where(going, move, 0)

    last = (2 * token_lens).unsqueeze(1)
    in_blank, in_token = alpha.gather(1, last), alpha.gather(1, last - 1)
    state = torch.where(in_blank >= in_token, last, last - 1)
    visited = torch.empty(size, rows, 1, dtype=torch.int64, device=device)
    for t in range(size - 1, -1, -1):
        visited[t] = state
        state = state - moves[t].gather(1, state)
    labels = state_labels.gather(1, visited.squeeze(2).T)
    possible = (torch.maximum(in_blank, in_token) > -torch.inf) & (torch.arange(size, device=device) < lens.unsqueeze(1))
    return labels.masked_fill(~possible, NO_LABEL).cpu()
