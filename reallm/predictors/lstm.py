"""LSTM predictor (Graves 2012, arXiv 1211.3711, section 2.2; Graves et al. 2013)."""

import torch
from torch import Tensor, nn

from reallm.errors import at_least
from reallm.layers.lstm import LSTMState, SteppingLSTM
from reallm.registry import register


@register("predictor", "lstm")
class LSTMPredictor(nn.Module):
    """Remembers all labels so far.

    Args:
        vocab_size: V, BLANK included, which stands for the start of the stream.
        dim: width of the label embeddings and of the predictions.
        layers: depth.
        dropout: between layers, in training.

    Raises InputError for a size below 1.
    """

    def __init__(self, vocab_size: int, dim: int = 256, layers: int = 1, dropout: float = 0.0) -> None:
        at_least(1, vocab_size=vocab_size, dim=dim, layers=layers)
        super().__init__()
        self.vocab_size, self.input_dim, self.output_dim = vocab_size, dim, dim
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.lstm = SteppingLSTM(dim, layers, dropout)
        self.norm = nn.LayerNorm(dim)

    @classmethod
    def tiny(cls) -> "LSTMPredictor":
        """Two layers of eight units."""
        return cls(vocab_size=11, dim=8, layers=2)

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""
        return self.token_embedding(token_ids)

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D), lens (B,) → predictions (B, L, D)."""
        return self.norm(self.lstm(inputs)[0])

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LSTMState:
        """The state of ``batch`` new streams."""
        return self.lstm.init_state(batch, device, dtype)

    def step(self, inputs: Tensor, active: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One label of each active row: inputs (B, D), active (B,) → predictions (B, D), state."""
        hidden, state = self.lstm.step(inputs, active, state)
        return self.norm(hidden), state
