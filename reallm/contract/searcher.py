"""The contract of searchers: speech embeddings to tokens. Legend: reallm/types.py."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reallm.contract.component import tiny
from reallm.contract.emissions import Answers, Backlog, collect, require_same_answers, require_well_formed
from reallm.contract.operation import take
from reallm.contract.requirement import require
from reallm.contract.state_algebra import require_state_algebra
from reallm.protocols import ResponseModel
from reallm.registry import find
from reallm.streaming.state import StreamingState, batch_size
from reallm.types import Emission

CAPACITY = 5


INTERLEAVERS = ("blank", "blank_fed", "chunk_eos", "delayed_stream")  # one of each sort of run-time policy


def model(interleaver: str = "blank") -> ResponseModel:
    """A small decoder with large random weights: it answers this and that, and rarely twice the same."""
    decoder: Any = tiny(find("decoder", "llama"), seed=3)
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(25.0)
    kind: Any = find("interleaver", interleaver)
    return ResponseModel(decoder, kind(blank_id=decoder.vocab_size - 1))


@dataclass
class CountState(StreamingState):
    """How many positions a row has consumed."""

    position: Tensor  # (B,) int64


class TalkingDecoder(nn.Module):
    """Never answers BLANK: what keeps the searcher from going on for ever is its cap."""

    vocab_size = 3
    input_dim = 2

    def embed(self, token_ids: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros(*token_ids.shape, self.input_dim, dtype=torch.float64)

    def init_state(self, batch: int, device: Any = "cpu", dtype: Any = torch.float32) -> CountState:
        """At the start."""
        return CountState(torch.zeros(batch, dtype=torch.int64, device=device))

    def step(self, inputs: Tensor, active: Tensor, state: CountState) -> tuple[Tensor, CountState]:
        """Token 1, always."""
        logits = inputs.new_tensor([0.0, 40.0, -40.0]).expand(inputs.size(0), -1)
        return logits, CountState(state.position + active)


def embeddings(decoder: Any, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Random speech embeddings (B, M, D_lm) and lens (B,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(lengths), max(lengths), decoder.input_dim, generator=generator, dtype=torch.float64)
    return x, torch.tensor(list(lengths))


def emissions_of(searcher: Any, using: ResponseModel, x: Tensor, lens: Tensor, chunk: int, seed: int, state: Any) -> Iterator[Emission]:
    """Of x (B, M, D), lens (B,), pushed where there is room in random numbers of embeddings, at most ``chunk``, with rests.

    With seed 0 it is as many as there are, at most ``chunk``. The last push of a row is final; what is pending then goes on.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = lens.size(0)
    position, done, owed = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.bool), Backlog(rows)
    while not bool(done.all()) or bool(owed.pending.any()):
        wanted = torch.randint(chunk + 1, (rows,), generator=generator) if seed else torch.full((rows,), chunk)
        filled = torch.where(done | owed.full, 0, torch.minimum(wanted, lens - position))
        final = ~done & ~owed.full & (filled == lens - position)
        emission, state = searcher.step(using, take(x, position, filled, chunk), filled, final, state)
        owed.hear(emission)
        yield emission
        position, done = position + filled, done | final


def search(searcher: Any, using: ResponseModel, x: Tensor, lens: Tensor, chunk: int, seed: int) -> list[Answers]:
    """All that is said of x (B, M, D), lens (B,); see ``emissions_of``."""
    state = searcher.init_state(using, lens.size(0), chunk, "cpu", torch.float64)
    return collect(*emissions_of(searcher, using, x, lens, chunk, seed, state))


@torch.no_grad()
def check_number_of_embeddings_a_step(cls: Any) -> None:
    """However the speech embeddings are dealt out to steps, and whenever rows rest, the tokens are the same, with any interleaver."""
    for name in INTERLEAVERS:
        searcher, using = tiny(cls), model(name)
        x, lens = embeddings(using.decoder, [13, 1, 8, 0])
        whole = search(searcher, using, x, lens, chunk=13, seed=0)
        require(any(a.token_ids for a in whole), f"{name}: no token came out of 22 random speech embeddings")
        for row, answers in enumerate(whole):
            what = f"{name}, row {row}"
            require_well_formed(answers, what)
            require(all(f < int(lens[row]) for f in answers.frame), f"{what}: frames {answers.frame} of {int(lens[row])} speech embeddings")
            answered = all((f + 1) % using.interleaver.response_every == 0 for f in answers.frame)
            require(answered, f"{what}: frames {answers.frame} are not those that are answered")
            require(using.interleaver.blank_id not in answers.token_ids, f"{what}: BLANK among the tokens {answers.token_ids}")
        for seed, chunk in enumerate((CAPACITY, 3, 1), 1):
            for row, answers in enumerate(search(searcher, using, x, lens, chunk, seed)):
                require_same_answers(answers, whole[row], f"{name}, row {row}, {chunk} embeddings a step at most")


@torch.no_grad()
def check_rows_do_not_mix(cls: Any) -> None:
    """B rows together give what each gives alone."""
    searcher, using = tiny(cls), model()
    x, lens = embeddings(using.decoder, [9, 2, 6])
    for row, answers in enumerate(search(searcher, using, x, lens, CAPACITY, 0)):
        alone = search(searcher, using, x[row : row + 1], lens[row : row + 1], CAPACITY, 0)[0]
        require_same_answers(answers, alone, f"row {row} among others")


@torch.no_grad()
def check_responses_are_capped(cls: Any) -> None:
    """A model that never answers BLANK is cut off in every response, and each cut is counted."""
    interleaver: Any = find("interleaver", "blank")
    using = ResponseModel(TalkingDecoder(), interleaver(blank_id=2))
    x, lens = embeddings(using.decoder, [4, 1])
    for row, answers in enumerate(search(tiny(cls), using, x, lens, CAPACITY, 0)):
        responses = {frame: answers.frame.count(frame) for frame in answers.frame}
        require(
            sorted(responses) == list(range(int(lens[row]))), f"row {row}: answers to {sorted(responses)} of {int(lens[row])} embeddings"
        )
        require(len(set(responses.values())) == 1, f"row {row}: responses of {responses} tokens, all must be cut at the same number")
        require(answers.cap_hits == int(lens[row]), f"row {row}: {answers.cap_hits} cuts counted of {int(lens[row])}")


@torch.no_grad()
def check_state_algebra(cls: Any) -> None:
    """The state keeps its shapes; rows of different age share a batch; a reset row is new and leaves the others bit-equal."""
    searcher, using = tiny(cls), model()
    x, _ = embeddings(using.decoder, [2 * CAPACITY])

    def push(number: int, state: Any) -> tuple[Emission, Any]:
        rows = batch_size(state)
        chunk = x[:, number * CAPACITY : (number + 1) * CAPACITY].expand(rows, -1, -1)
        return searcher.step(using, chunk, torch.full((rows,), CAPACITY), torch.full((rows,), number > 0), state)

    require_state_algebra(searcher.init_state(using, 1, CAPACITY, "cpu", torch.float64), push)


CHECKS = [check_number_of_embeddings_a_step, check_rows_do_not_mix, check_responses_are_capped, check_state_algebra]
