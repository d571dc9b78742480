"""An LSTM that also goes position by position, in rows of any age. Legend: reallm/types.py."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reallm.streaming.state import StreamingState


@dataclass
class LSTMState(StreamingState):
    """Hidden and cell state of all layers."""

    hidden: Tensor  # (B, layers, D)
    cell: Tensor  # (B, layers, D)


class SteppingLSTM(nn.LSTM):
    """Layers of width D over (B, L, D), batch first; ``step`` takes one position of each active row.

    Args:
        dim: D.
        layers: depth.
        dropout: between layers, in training.
    """

    def __init__(self, dim: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__(dim, dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LSTMState:
        """Zeros."""
        shape = (batch, self.num_layers, self.hidden_size)
        return LSTMState(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))

    def step(self, inputs: Tensor, active: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """inputs (B, D), active (B,) → outputs (B, D), state; rows that are not active keep theirs to the bit."""
        # Gate by gate: one position of nn.LSTM costs several times as much.
        x, hidden, cell = inputs, [], []
        for layer, (w_input, w_hidden, b_input, b_hidden) in enumerate(self.all_weights):
            gates = F.linear(x, w_input, b_input) + F.linear(state.hidden[:, layer], w_hidden, b_hidden)
            enter, forget, candidate, leave = gates.chunk(4, dim=-1)
            cell.append(forget.sigmoid() * state.cell[:, layer] + enter.sigmoid() * candidate.tanh())
            x = leave.sigmoid() * cell[-1].tanh()
            hidden.append(x)
        moved = active.view(-1, 1, 1)
        after = LSTMState(
            torch.where(moved, torch.stack(hidden, dim=1), state.hidden),
            torch.where(moved, torch.stack(cell, dim=1), state.cell),
        )
        return x, after
