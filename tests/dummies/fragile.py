"""A system that one stream's audio breaks."""

from typing import Any

import torch

from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.recognizer import LevelSystem

LOUD = 3.0  # what FragileSystem cannot bear


class FragileSystem(LevelSystem):
    """Raises, after writing into its state, at a chunk with a loud sample in it, whatever else is in the batch."""

    broken = False

    def step(self, wav: torch.Tensor, lens: torch.Tensor, final: torch.Tensor, state: Any) -> Any:
        found = super().step(wav, lens, final, state)
        if self.broken or bool((wav.abs() > LOUD).any()):
            raise RuntimeError("too loud")
        return found


def fragile() -> FragileSystem:
    return FragileSystem(CharacterTokenizer.tiny()).eval()
