"""An LSTM that also goes position by position, in rows of any age. Legend: reallm/types.py."""

from dataclasses import dataclass

import torch
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
        before = (state.hidden.transpose(0, 1).contiguous(), state.cell.transpose(0, 1).contiguous())
        output, (hidden, cell) = self(inputs.unsqueeze(1), before)
        moved = active.view(-1, 1, 1)
        after = LSTMState(
            torch.where(moved, hidden.transpose(0, 1), state.hidden),
            torch.where(moved, cell.transpose(0, 1), state.cell),
        )
        return output[:, 0], after
