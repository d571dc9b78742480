"""The joint network of a transducer (Graves et al. 2013, "Speech Recognition with Deep Recurrent Neural Networks", eq. 15 and 16)."""

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """output(tanh(audio(h) + text(g))): what follows, given encoder frame h and prediction g.

    Args:
        encoder_dim, predictor_dim: widths of h and g.
        dim: width D in which they are added.
        vocab_size: V, BLANK included.
    """

    def __init__(self, encoder_dim: int, predictor_dim: int, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.dim, self.vocab_size = dim, vocab_size
        self.audio = nn.Linear(encoder_dim, dim)
        self.text = nn.Linear(predictor_dim, dim, bias=False)
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, audio: Tensor, text: Tensor) -> Tensor:
        """Of shapes (…, D) that broadcast, already mapped by ``audio`` and ``text`` → logits (…, V)."""
        return self.output(torch.tanh(audio + text))
