"""Stateless predictor: the last labels alone (Ghodsi et al. 2020, "RNN-Transducer with Stateless Prediction Network")."""

import torch
from torch import Tensor, nn

from reallm.errors import at_least
from reallm.layers.subsampling import StridedWindow, WindowState
from reallm.registry import register


@register("predictor", "stateless")
class StatelessPredictor(nn.Module):
    """A causal convolution over the embeddings of the last labels: the transducer's own n-gram model.

    Args:
        vocab_size: V, BLANK included, which stands for the start of the stream.
        dim: width of the label embeddings and of the predictions.
        context: labels that a prediction is made of; with 1 it is a bigram.

    Raises InputError for a size below 1.
    """

    def __init__(self, vocab_size: int, dim: int = 256, context: int = 2) -> None:
        at_least(1, vocab_size=vocab_size, dim=dim, context=context)
        super().__init__()
        self.vocab_size, self.input_dim, self.output_dim = vocab_size, dim, dim
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.window = StridedWindow(dim, dim, stride=1, context=context - 1)

    @classmethod
    def tiny(cls) -> "StatelessPredictor":
        """Three labels."""
        return cls(vocab_size=11, dim=8, context=3)

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""
        return self.token_embedding(token_ids)

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D), lens (B,) → predictions (B, L, D)."""
        return torch.relu(self.window(inputs, lens)[0])

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> WindowState:
        """The state of ``batch`` new streams."""
        return self.window.init_state(batch, device, dtype)

    def step(self, inputs: Tensor, active: Tensor, state: WindowState) -> tuple[Tensor, WindowState]:
        """One label of each active row: inputs (B, D), active (B,) → predictions (B, D), state."""
        window, _, state = self.window.step(inputs.unsqueeze(1), active.long(), torch.zeros_like(active), state)
        return torch.relu(window[:, 0]), state
