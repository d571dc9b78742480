"""Where speech ends, against the definition."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reallm.protocols import ResponseModel, RowOptions
from reallm.registry import find
from reallm.searchers._end_of_speech import NEVER, Silence
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.state import StreamingState
from reallm.types import Emission, SpeechEnds

BLANK, SIZE = 3, 4


def events(ends: SpeechEnds, row: int) -> list[tuple[int, int]]:
    """(embedding, tokens of the step before it)."""
    return [(f, n) for f, n in zip(ends.frame[row].tolist(), ends.tokens[row].tolist(), strict=True) if f >= 0]


@pytest.mark.parametrize("every", [1, 3])
def test_silence_is_counted_by_its_definition_in_any_pieces(every: int) -> None:
    generator = torch.Generator().manual_seed(every)
    rows, length = 40, 60
    silent = torch.rand(rows, length, generator=generator) < torch.rand(rows, 1, generator=generator).sqrt()
    words = (torch.rand(rows, length, generator=generator) < 0.2).long() * torch.randint(1, 3, (rows, length), generator=generator)
    words = torch.where(silent | ((torch.arange(length) + 1) % every != 0), 0, words)
    least = torch.randint(1, 9, (rows,), generator=generator)
    found: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    state, at, most = Silence.start(rows, "cpu"), torch.zeros(rows, dtype=torch.int64), 7
    state.begin(torch.arange(rows) > 0, least)
    told = torch.zeros(rows, dtype=torch.int64)
    while bool((at < length).any()):
        heard = torch.minimum(torch.randint(0, most + 1, (rows,), generator=generator), length - at)
        columns = (at.unsqueeze(1) + torch.arange(most)).clamp(max=length - 1)
        spans = list(zip(at.tolist(), heard.tolist(), strict=True))
        said = [[m for m in range(a, a + h) for _ in range(int(words[row, m]))] for row, (a, h) in enumerate(spans)]
        lens = torch.tensor([len(one) for one in said])
        frame = torch.tensor([one + [0] * (20 - len(one)) for one in said])
        emission = Emission(frame, frame, frame.float(), lens, lens)
        ends, state = state.hear(silent.gather(1, columns), heard, at, emission, every)
        for row in range(rows):
            found[row] += [(f, int(told[row]) + n) for f, n in events(ends, row)]
        at, told = at + heard, told + lens
    count = 0
    for row in range(rows):
        expected, run, said_so_far, since = [], 0, 0, False
        for m in range(every - 1, length, every):
            run = run + every if bool(silent[row, m]) else 0
            said_so_far, since = said_so_far + int(words[row, m]), since or bool(words[row, m])
            if since and run >= (int(least[row]) if row else NEVER):
                expected.append((m, said_so_far))
                since = False
        assert found[row] == expected
        count += len(expected)
    assert count > 20 and not found[0]


class Script(torch.nn.Module):
    """Answers an embedding with what it says, and anything with BLANK after a token."""

    vocab_size = input_dim = SIZE

    def embed(self, token_ids: Tensor) -> Tensor:
        after = torch.zeros(*token_ids.shape, SIZE, dtype=torch.float64)
        after[..., BLANK] = torch.where(token_ids == BLANK, 0.0, 40.0)
        return after

    def init_state(self, batch: int, device: Any = "cpu", dtype: Any = torch.float32) -> StreamingState:
        return StreamingState()

    def step(self, inputs: Tensor, active: Tensor, state: StreamingState) -> tuple[Tensor, StreamingState]:
        return inputs, state


def script(rows: int, length: int) -> Tensor:
    """(B, M, V): stretches of silence, certain or not, and of tokens."""
    generator = torch.Generator().manual_seed(3)
    speech = torch.randn(rows, length, SIZE, generator=generator, dtype=torch.float64)
    mood = torch.randint(0, 4, (rows, -(-length // 5)), generator=generator).repeat_interleave(5, 1)[:, :length]
    speech[..., BLANK] += torch.tensor([-1.0, 1.0, 9.0, 9.0])[mood]
    return speech


def by_definition(speech: Tensor, least: int, every: int, added: bool) -> list[tuple[int, int]]:
    found, run, tokens, since, was_token = [], 0, 0, False, False
    for m in range(every - 1, len(speech), every):
        logits = speech[m].clone()
        if added and was_token:
            logits[BLANK] += 40.0
        was_token = int(logits.argmax()) != BLANK
        tokens, since = tokens + was_token, since or was_token
        run = run + every if not was_token and float(logits.log_softmax(-1)[BLANK]) >= math.log(0.9) else 0
        if since and run >= least:
            found.append((m, tokens))
            since = False
    return found


SEARCHERS = {"greedy": GreedySearcher(2), "beam of 1": BeamSearcher(1, max_symbols=2), "beam": BeamSearcher(3, merge="off", max_symbols=2)}
INTERLEAVERS = ["blank", "blank_fed", "chunk_eos", "delayed_stream"]
# In a delayed stream answers depend on each other here, and a beam finds better ones than the first.
PAIRS = [(search, name) for search in SEARCHERS for name in INTERLEAVERS if (search, name) != ("beam", "delayed_stream")]


@pytest.mark.parametrize(("search", "interleaver"), PAIRS)
def test_searchers_end_speech_by_the_definition(search: str, interleaver: str) -> None:
    searcher: Any = SEARCHERS[search]
    kind: Any = find("interleaver", interleaver)
    using = ResponseModel(Script(), kind(blank_id=BLANK))
    speech, least = script(4, 90), torch.tensor([5, 2, 99, 8])
    state = searcher.init_state(using, 4, 12, dtype=torch.float64)
    searcher.begin(state, torch.tensor([True, True, False, True]), RowOptions(least, torch.zeros(4).double(), least, 0 * least))
    found: list[list[tuple[int, int]]] = [[] for _ in range(4)]
    told = [0] * 4
    at = 0
    for size in (12, 1, 7, 12, 3, 12, 12, 12, 12, 7):
        final = torch.full((4,), at + size == 90)
        chunk = torch.nn.functional.pad(speech[:, at : at + size], (0, 0, 0, 12 - size))
        emission, state = searcher.step(using, chunk, torch.full((4,), size), final, state)
        assert emission.speech_ends is not None
        for row in range(4):
            found[row] += [(f, told[row] + n) for f, n in events(emission.speech_ends, row)]
            told[row] += int(emission.lens[row])
        at += size
    every = using.interleaver.response_every
    for row in range(4):
        limit = int(least[row]) if row != 2 else NEVER
        assert found[row] == by_definition(speech[row], limit, every, interleaver == "delayed_stream")
    assert sum(len(one) for one in found) > 5 and not found[2]


def test_an_end_of_speech_commits_the_best_hypothesis() -> None:
    using = ResponseModel(Script(), find("interleaver", "blank")(blank_id=BLANK))
    speech = torch.full((1, 12, SIZE), -9.0, dtype=torch.float64)
    speech[:, :, BLANK] = 9.0
    speech[0, 2] = torch.tensor([0.1, 0.0, -1.0, -9.0])  # which of two tokens it was stays open for ever
    said = {}
    for least in (6, NEVER):
        searcher = BeamSearcher(3, max_symbols=2)
        state = searcher.init_state(using, 1, 12, dtype=torch.float64)
        options = RowOptions(torch.tensor([0]), torch.zeros(1).double(), torch.tensor([least]), torch.tensor([0]))
        searcher.begin(state, torch.tensor([True]), options)
        emission, state = searcher.step(using, speech, torch.tensor([12]), torch.tensor([False]), state)
        said[least] = emission.token_ids[0, : emission.lens[0]].tolist(), int(state.hypotheses.live.sum())
        if least == 6:
            assert emission.speech_ends is not None and events(emission.speech_ends, 0) == [(8, 1)]
    assert said[6][0] == [0] and said[NEVER] == ([], 3)
