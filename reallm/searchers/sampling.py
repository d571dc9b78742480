"""Sampling: answers drawn from the model's distribution, each row on its own."""

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.registry import register
from reallm.searchers.greedy import GreedySearcher

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed integer


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele et al. 2014), on int64 with wrap-around."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def gumbel_noise(seed: int, position: Tensor, size: int) -> Tensor:
    """(B, size) float64 Gumbel noise as a pure function of seed and position (B,): no row depends on its neighbours."""
    counter = position.unsqueeze(1) * size + torch.arange(size, device=position.device)
    bits = _mix(_mix(counter * _GOLDEN + seed) + _GOLDEN)
    uniform = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) / (1 << 53)
    return -torch.log(-torch.log(uniform))


@register("searcher", "sampling")
class SamplingSearcher(GreedySearcher):
    """Draws every answer by the Gumbel-max trick, with counter-based noise: a stream draws the same whatever shares its batch.

    Args:
        temperature: divides the log-probabilities, that of BLANK less its penalty; towards 0 it becomes greedy search.
        seed: another seed draws other answers.
        max_symbols, blank_penalty, positions: as in greedy search.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        seed: int = 0,
        max_symbols: int = 10,
        blank_penalty: float = 0.0,
        positions: int | None = None,
    ) -> None:
        super().__init__(max_symbols, blank_penalty, positions)
        if temperature <= 0:
            raise InputError(f"temperature {temperature}: must be above 0 (searcher 'greedy' is the limit)")
        self.temperature, self.seed = temperature, seed

    @classmethod
    def tiny(cls) -> "SamplingSearcher":
        """Responses of three tokens at most."""
        return cls(max_symbols=3)

    def choose(self, scores: Tensor, blank_id: int, position: Tensor) -> Tensor:
        """See GreedySearcher.choose."""
        scores = scores.double() / self.temperature
        return (scores + gumbel_noise(self.seed, position, scores.size(1))).argmax(dim=-1)
