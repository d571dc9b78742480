"""A causal LSTM encoder. Legend: reallm/types.py."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from reallm.errors import at_least
from reallm.layers.dropout import Dropout
from reallm.layers.lstm import LSTMState, SteppingLSTM
from reallm.layers.subsampling import StridedWindow, WindowState
from reallm.protocols import ChunkSpec
from reallm.registry import register
from reallm.streaming.context import mask_padding
from reallm.streaming.geometry import Geometry
from reallm.streaming.host import may_look
from reallm.streaming.state import StreamingState


@dataclass
class LSTMEncoderState(StreamingState):
    """A stream between two chunks."""

    subsampling: WindowState
    hidden: Tensor  # (B, layers, D)
    cell: Tensor  # (B, layers, D)


@register("encoder", "lstm")
class LSTMEncoder(nn.Module):
    """Stacked feature frames through LSTM layers: causal by nature, so that it ignores ``chunk`` in ``forward``.

    ``step`` takes any multiple of ``stride`` feature frames, up to chunk_size · stride.

    Args:
        input_dim: F.
        dim: D.
        layers: number of LSTM layers.
        stride: feature frames per encoder frame.
        context: feature frames before its own that an encoder frame's window sees.
        chunk_size: encoder frames per step.
        dropout: probability, after the window and between layers.

    Raises InputError for a size below 1.
    """

    def __init__(
        self, input_dim: int, dim: int = 256, layers: int = 3, stride: int = 4, context: int = 0, chunk_size: int = 8, dropout: float = 0.1
    ) -> None:
        at_least(1, input_dim=input_dim, dim=dim, layers=layers, stride=stride)
        super().__init__()
        self.input_dim = input_dim
        self.output_dim = dim
        self.chunk = ChunkSpec(chunk_size, left=0)
        self.geometry = Geometry(stride)
        self.subsampling = StridedWindow(input_dim, dim, stride, context)
        self.embedding = nn.Sequential(nn.LayerNorm(dim), nn.SiLU(), Dropout(dropout))
        self.lstm = SteppingLSTM(dim, layers, dropout)
        self.norm = nn.LayerNorm(dim)

    @classmethod
    def tiny(cls) -> Self:
        """Two layers, steps of three frames."""
        return cls(input_dim=8, dim=12, layers=2, context=2, chunk_size=3, dropout=0.0)

    def forward(self, feats: Tensor, lens: Tensor, chunk: ChunkSpec | None = None) -> tuple[Tensor, Tensor]:
        """feats (B, T, F) → enc (B, N, D), lens (B,)."""
        x, lens = self.subsampling(feats, lens)
        if x.size(1):
            x, _ = self.lstm(self.embedding(x))
        return mask_padding(self.norm(x), lens), lens

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LSTMEncoderState:
        """The state of ``batch`` new streams."""
        zeros = torch.zeros(batch, self.lstm.num_layers, self.output_dim, device=device, dtype=dtype)
        return LSTMEncoderState(self.subsampling.init_state(batch, device, dtype), zeros, zeros.clone())

    def step(self, feats: Tensor, lens: Tensor, final: Tensor, state: LSTMEncoderState) -> tuple[Tensor, Tensor, LSTMEncoderState]:
        """feats (B, T_c, F) → enc (B, ceil(T_c / stride), D), lens (B,), state."""
        x, lens, subsampling = self.subsampling.step(feats, lens, final, state.subsampling)
        x, before = self.embedding(x), LSTMEncoderState(subsampling, state.hidden, state.cell)
        if not may_look(lens):
            return self._frame_by_frame(x, lens, before)
        # All rows run the whole chunk: were the frames packed, the last bits of a row would hang on how many rows have as many.
        enc, after = self.lstm(x, (before.hidden.transpose(0, 1).contiguous(), before.cell.transpose(0, 1).contiguous()))
        hidden, cell = before.hidden, before.cell
        part = (lens > 0) & (lens < x.size(1))
        if bool(part.any()):  # nn.LSTM returns the state after the last frame of the chunk, not of the row
            _, _, parts = self._frame_by_frame(x, lens, before)
            hidden, cell = parts.hidden, parts.cell
        whole = (lens == x.size(1)).view(-1, 1, 1)
        hidden, cell = torch.where(whole, after[0].transpose(0, 1), hidden), torch.where(whole, after[1].transpose(0, 1), cell)
        return mask_padding(self.norm(enc), lens), lens, LSTMEncoderState(subsampling, hidden, cell)

    def _frame_by_frame(self, x: Tensor, lens: Tensor, state: LSTMEncoderState) -> tuple[Tensor, Tensor, LSTMEncoderState]:
        after, enc = LSTMState(state.hidden, state.cell), []
        for frame in range(x.size(1)):
            out, after = self.lstm.step(x[:, frame], lens > frame, after)
            enc.append(out)
        return mask_padding(self.norm(torch.stack(enc, dim=1)), lens), lens, LSTMEncoderState(state.subsampling, after.hidden, after.cell)
