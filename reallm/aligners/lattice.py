"""The torch backend of the RNN-T aligner: Viterbi over anti-diagonals of the lattice, in float64, for all utterances at once.

Cell (t, u) of the lattice (Graves 2012, figure 1): t frames are behind, u tokens are said. BLANK leads to (t + 1, u), the next
token to (t, u + 1); a path begins in (0, 0) and ends with BLANK from (N - 1, U). All cells with t + u = d depend on those with
d - 1 alone::

    u  2 │ 2 3 4 5         cells of one number are done at once: N + U rounds
       1 │ 1 2 3 4
       0 │ 0 1 2 3
         └───────── t
"""

import torch
from torch import Tensor

from reallm.aligners.path import NO_LABEL


@torch.no_grad()
def viterbi_emissions(blank: Tensor, token: Tensor, lens: Tensor, token_lens: Tensor) -> Tensor:
    """The frame in which the best path says each token. Among equal paths it prefers tokens that are said early.

    Args:
        blank: (B, N, U + 1) log-probabilities of BLANK after each number of tokens.
        token: (B, N, U) log-probabilities of the next token.
        lens: (B,) int64 frames, at least 1.
        token_lens: (B,) int64, at least 1.

    Returns:
        frames (B, U) int64 on the CPU, -1 from each row's last token on, and everywhere in a row whose paths are all impossible.
    """
    rows, size, states = blank.shape
    device = blank.device
    lens, token_lens = lens.to(device), token_lens.to(device)
    said = torch.arange(states, device=device)
    last = lens - 1 + token_lens  # the diagonal of each row's last cell
    rounds = int(last.max())
    alpha = torch.full((rows, states), -torch.inf, dtype=torch.float64, device=device)
    alpha[:, 0] = 0
    impossible = alpha[:, 1:2]
    total = alpha[:, 1]
    by_token = torch.zeros(rounds + 1, rows, states, dtype=torch.bool, device=device)
    for diagonal in range(1, rounds + 1):
        frame = diagonal - 1 - said  # of the cells before; a negative one holds -inf, one beyond the end leads on to others alone
        at = frame.clamp(0, size - 1)
        waits = alpha + blank[:, at, said]
        says = torch.cat([impossible, alpha[:, :-1] + token[:, at[:-1], said[:-1]]], dim=1)
        by_token[diagonal] = says > waits
        alpha = torch.maximum(waits, says)
        total = torch.where(last == diagonal, alpha.gather(1, token_lens.unsqueeze(1)).squeeze(1), total)
    total = total + blank[torch.arange(rows, device=device), lens - 1, token_lens]

    # One column more, for what is not said in a round.
    frames = torch.full((rows, states), NO_LABEL, device=device)
    count = token_lens.unsqueeze(1)
    for diagonal in range(rounds, 0, -1):
        here = (last >= diagonal).unsqueeze(1)
        says = by_token[diagonal].gather(1, count) & here
        frames.scatter_(1, torch.where(says, count - 1, states - 1), diagonal - count)
        count = count - says.long()
    written = (said[:-1] < token_lens.unsqueeze(1)) & (total > -torch.inf).unsqueeze(1)
    return frames[:, :-1].masked_fill(~written, NO_LABEL).cpu()
