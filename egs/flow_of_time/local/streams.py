"""Streams for a clock: a ReaLLM that says TICK after every k-th input, where inputs say nothing of time.

What there is of the toolkit: ReaLLM with a decoder, an interleaver and a searcher, and nothing that knows of speech.
Legend: B streams, M inputs, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reallm.systems.reallm import ReaLLM, Responses

TICK, BLANK = 10, 11  # after the ten digits
PROMPTS = ("told", "shown")


@dataclass(frozen=True)
class Interval:
    """What one stream is asked for: a tick every ``inputs`` inputs.

    ``prompt``: "told" is the number in two digits, "shown" is one interval between two ticks.
    """

    inputs: int
    prompt: str


def empty(count: int, noise: float, dim: int, generator: torch.Generator) -> Tensor:
    """(count, D) inputs that say nothing: all ones, and noise of deviation ``noise``."""
    return 1 + noise * torch.randn(count, dim, generator=generator)


def prompt(interval: Interval, model: ReaLLM, noise: float, generator: torch.Generator) -> Tensor:
    """(P, D), how a stream begins."""
    if interval.prompt == "told":
        return model.decoder.embed(torch.tensor(divmod(interval.inputs, 10)))
    tick = model.decoder.embed(torch.tensor([TICK]))
    return torch.cat([tick, empty(interval.inputs, noise, tick.size(1), generator), tick])


def training_batch(
    model: ReaLLM, intervals: Sequence[Interval], inputs: int, noises: Sequence[float], generator: torch.Generator
) -> tuple[Tensor, Tensor, list[Responses]]:
    """Streams of ``inputs`` inputs after their prompts → embeddings (B, M, D), lens (B,), and the ticks that are due."""
    rows, responses = [], []
    for interval, noise in zip(intervals, noises, strict=True):
        begin = prompt(interval, model, noise, generator)
        rows.append(torch.cat([begin, empty(inputs, noise, begin.size(1), generator)]))
        due = torch.arange(interval.inputs - 1, inputs, interval.inputs)
        responses.append(Responses(torch.full_like(due, TICK), len(begin) + due))
    lens = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lens, responses


@torch.inference_mode()
def ticks(
    model: ReaLLM, intervals: Sequence[Interval], inputs: int, noises: Sequence[float], generator: torch.Generator, piece: int = 32
) -> list[list[int]]:
    """Stream ``inputs`` inputs after each prompt, ``piece`` at a time → for each stream the inputs that it answered TICK, from 1."""
    begins = [prompt(interval, model, noise, generator) for interval, noise in zip(intervals, noises, strict=True)]
    dim, lens = begins[0].size(1), torch.tensor([len(begin) for begin in begins])
    before, not_final = lens, torch.zeros(len(lens), dtype=torch.bool)
    state = model.init_state(len(begins), max(int(lens.max()), piece))
    _, state = model.step(torch.nn.utils.rnn.pad_sequence(begins, batch_first=True), lens, not_final, state)
    found: list[list[int]] = [[] for _ in begins]
    for start in range(0, inputs, piece):
        size = min(piece, inputs - start)
        heard = torch.stack([empty(size, noise, dim, generator) for noise in noises])
        emission, state = model.step(heard, torch.full_like(lens, size), not_final, state)
        when = emission.frame + 1 - before.unsqueeze(1)
        for row, (answers, times, count) in enumerate(zip(emission.token_ids, when, emission.lens, strict=True)):
            found[row] += times[:count][answers[:count] == TICK].tolist()
    return found
