"""LSTM decoder: the prediction network of RNN-T (Graves 2012, arXiv 1211.3711) as a decoder-only model."""

import torch
from torch import Tensor, nn

from reallm.errors import at_least
from reallm.layers.lstm import LSTMState, SteppingLSTM
from reallm.registry import register


@register("decoder", "lstm")
class LSTMDecoder(nn.Module):
    """Recurrent language model over the same interleaved sequence: constant memory without a window.

    Args:
        vocab_size: V, BLANK included.
        dim: width of the model and of its input embeddings.
        layers: depth.
        dropout: between layers, in training.

    Raises InputError for a size below 1.
    """

    def __init__(self, vocab_size: int, dim: int = 256, layers: int = 2, dropout: float = 0.0) -> None:
        at_least(1, vocab_size=vocab_size, dim=dim, layers=layers)
        super().__init__()
        self.vocab_size, self.input_dim = vocab_size, dim
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.lstm = SteppingLSTM(dim, layers, dropout)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab_size)

    @classmethod
    def tiny(cls) -> "LSTMDecoder":
        """Two layers of eight units."""
        return cls(vocab_size=11, dim=8, layers=2)

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""
        return self.token_embedding(token_ids)

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D), lens (B,) → logits (B, L, V)."""
        hidden, _ = self.lstm(inputs)
        return self.output(self.norm(hidden))

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LSTMState:
        """The state of ``batch`` new streams."""
        return self.lstm.init_state(batch, device, dtype)

    def step(self, inputs: Tensor, active: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One position of each active row: inputs (B, D), active (B,) → logits (B, V), state."""
        hidden, state = self.lstm.step(inputs, active, state)
        return self.output(self.norm(hidden)), state
