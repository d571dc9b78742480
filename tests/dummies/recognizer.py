"""A small real system that hears loudness: each stretch of constant level is one digit, spoken until it ends.

Deterministic, streaming, with look-ahead and state, and exact about its state, so that tests of the recognizer, of
bundles and of the command line need no trained model. Not registered here: it must not show up in the catalogue of
other tests.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reallm.protocols import Tokenizer
from reallm.streaming.state import StreamingState
from reallm.types import Batch, Emission

WORDS = ["one", "two", "three", "four", "five", "six"]
STEP = 0.125  # level of digit d (from 1) is d · STEP
FRAME = 400  # samples


@dataclass
class LevelState(StreamingState):
    """What a row heard in its last frame."""

    level: Tensor  # (B,) int64, 0 = silence
    heard: Tensor  # (B,) int64, the digit not yet emitted, 0 = none
    frames: Tensor  # (B,) int64, frames so far


class LevelSystem(nn.Module):
    """Two frames of one level are a digit; it comes out, as the tokens of its word and a space, once silence follows.

    Args:
        tokenizer: knows the letters of the digits and the space.
        chunk_frames: frames of 50 ms in a chunk.
    """

    sample_rate = 8000
    period_samples = FRAME

    def __init__(self, tokenizer: Tokenizer, chunk_frames: int = 6) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.chunk_frames = chunk_frames
        self.chunk_samples = chunk_frames * FRAME
        self.gain = nn.Parameter(torch.tensor([1.0, 1.0]))
        self.linear = nn.Linear(3, 2)
        self.words = [tokenizer.encode(word + " x")[:-1] for word in WORDS]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Something to minimize."""
        loss = self.gain.square().sum() + self.linear.weight.square().sum() + self.linear.bias.square().sum()
        return loss, {}

    def flush_samples(self, samples: int) -> int:
        """One frame of silence brings out the last digit."""
        return -samples % FRAME + FRAME

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LevelState:
        """Silence."""
        return LevelState(*(torch.zeros(batch, dtype=torch.int64, device=device) for _ in range(3)))

    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: LevelState) -> tuple[Emission, LevelState]:
        """wav (B, S_c) → tokens, state."""
        rows: list[list[tuple[int, int]]] = [[] for _ in lens]
        for row, length in enumerate(lens.tolist()):
            assert final[row] or length % FRAME == 0
            for begin in range(0, length, FRAME):
                frame = wav[row, begin : min(begin + FRAME, length)].abs().sum() / FRAME * self.gain.detach()[0]
                digit = round(float(frame) / STEP)
                digit = digit if digit <= len(WORDS) else 0
                if digit and digit == int(state.level[row]):
                    state.heard[row] = digit
                elif digit == 0 and state.heard[row]:
                    rows[row] += [(token, int(state.frames[row])) for token in self.words[int(state.heard[row]) - 1]]
                    state.heard[row] = 0
                state.level[row] = digit
                state.frames[row] += 1
        return _emission(rows), state

    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """The whole at once."""
        flush = max(self.flush_samples(int(n)) for n in lens)
        padded = torch.nn.functional.pad(wav, (0, flush))
        total = lens + torch.tensor([self.flush_samples(int(n)) for n in lens])
        return self.step(padded, total, torch.ones_like(lens, dtype=torch.bool), self.init_state(len(lens)))[0]

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The frame before the silence."""
        return (frame - 1) * FRAME, frame * FRAME


def _emission(rows: list[list[tuple[int, int]]]) -> Emission:
    size = max([1, *(len(row) for row in rows)])
    padded = torch.tensor([row + [(0, -7)] * (size - len(row)) for row in rows], dtype=torch.int64)
    lens = torch.tensor([len(row) for row in rows])
    return Emission(padded[..., 0], padded[..., 1], torch.full(padded.shape[:2], -0.01), lens, torch.zeros_like(lens))


def say(digits: list[int], sample_rate: int = 8000, seed: int = 0, trailing: float = 0.3) -> np.ndarray:
    """Audio (S,) float32 of digits 1 … 6: each 0.3 to 0.6 s of an alternating signal, 0.2 to 0.5 s of silence between."""
    random = np.random.default_rng(seed)
    parts = []
    for position, digit in enumerate(digits):
        parts.append(np.zeros(int(random.uniform(0.2, 0.5) * sample_rate)))
        length = int(random.uniform(0.3, 0.6) * sample_rate)
        # A slow square wave keeps its mean absolute value through any resampler but for its few edges.
        parts.append(digit * STEP * np.ones(length) * (-1 if position % 2 else 1))
    parts.append(np.zeros(int(trailing * sample_rate)))
    return np.concatenate(parts).astype(np.float32)


def text_of(digits: list[int]) -> str:
    """What :func:`say` says."""
    return " ".join(WORDS[digit - 1] for digit in digits)


def no_memory(*arguments: object) -> None:
    """In place of a system's ``step`` or ``recognize``."""
    raise RuntimeError("no memory")
