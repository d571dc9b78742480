"""Rings of keys and values as a cache of ``transformers``, whose own ones grow, or have one age for all rows."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache


class RingCache(Cache):
    """One step of all rows: takes the new key and value of each row in, and gives the rings back.

    Args:
        keys, values: one ring a layer, (B, kv_heads, W, head_dim) each, which are written into.
        slot: (B,) int64, where each row's new key goes. A resting row may write there too: what lies there has left the window.
    """

    def __init__(self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], slot: Tensor) -> None:
        super().__init__(layers=[])
        self.keys, self.values, self.slot = keys, values, slot
        self.rows = torch.arange(slot.size(0), device=slot.device)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """key_states, value_states (B, kv_heads, 1, head_dim) → the rings of the layer."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.slot] = key_states[:, :, 0]
        values[self.rows, :, self.slot] = value_states[:, :, 0]
        return keys, values


class ShapeProbe(Cache):
    """Notes the shapes of what each layer would store."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: dict[int, tuple[torch.Size, torch.Size]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Gives back what it was given."""
        self.shapes[layer_idx] = (key_states.shape, value_states.shape)
        return key_states, value_states
