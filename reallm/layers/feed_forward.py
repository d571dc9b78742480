"""The Conformer's feed-forward module."""

from torch import Tensor, nn

from reallm.layers.dropout import Dropout


class FeedForward(nn.Module):
    """LayerNorm, linear, SiLU, linear, with dropout; the caller adds the residual (Gulati et al., 2020, section 2.3)."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.SiLU(),
            Dropout(dropout),
            nn.Linear(hidden, dim),
            Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → (…, D)."""
        return self.layers(x)
