"""CTC prefix scores: those that all labellings of all frames sum up to, and SpeechBrain's."""

import itertools

import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixScore
from torch import Tensor

from reallm.streaming.state import StreamingState, select
from reallm.systems._ctc_prefix import CTCPrefixes, CTCPrefixScorer, joint_search

BLANK = 3
# Two hypotheses of each utterance, each asking for two of the three tokens.
SAID = [[0, 0, 1], [2, 0, 0], [1, 2, 1], [2, 2, 2], [0, 1, 0], [1, 1, 2], [0, 0, 0], [1, 0, 1]]
LENS = [5, 3, 1, 0]
FRAMES = 7  # of which the last two are padding everywhere


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def summed(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Every text that the frames (N, V) may be, with its probability."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(BLANK + 1), repeat=log_probs.size(0)):
        probability = float(log_probs[torch.arange(len(path)), torch.tensor(path, dtype=torch.int64)].sum().exp())
        found[collapsed(path)] = found.get(collapsed(path), 0.0) + probability
    return found


def frames(rows: int, length: int, size: int, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.log_softmax(sharpness * torch.randn(rows, length, size, generator=generator, dtype=torch.float64), dim=-1)


def test_every_step_is_the_ratio_of_two_sums() -> None:
    log_probs = frames(len(LENS), FRAMES, BLANK + 1)
    texts = [summed(row[:length]) for row, length in zip(log_probs, LENS, strict=True)]
    scorer = CTCPrefixScorer(log_probs, torch.tensor(LENS))
    state: CTCPrefixes = select(scorer.init_state(2), torch.arange(len(LENS)).repeat_interleave(2))
    last, checked = torch.full((len(SAID),), BLANK), 0
    for length in range(4):
        following = torch.tensor([[text[length], (text[length] + 1) % 3] if length < 3 else [0, 1] for text in SAID])
        scores, ends, state = scorer.step(last, following, state)
        for row, text in enumerate(SAID):
            utterance, prefix = texts[row // 2], tuple(text[:length])

            def begins(start: tuple[int, ...], of: dict[tuple[int, ...], float] = utterance) -> float:
                return sum(p for text, p in of.items() if text[: len(start)] == start)

            if begins(prefix) == 0:
                continue  # more tokens than frames
            for token, score in zip(following[row].tolist(), scores[row], strict=True):
                torch.testing.assert_close(float(score.exp()), begins((*prefix, token)) / begins(prefix), atol=1e-9, rtol=1e-9)
                checked += 1
            torch.testing.assert_close(float(ends[row].exp()), utterance.get(prefix, 0.0) / begins(prefix), atol=1e-9, rtol=1e-9)
        last = torch.tensor([text[length] if length < 3 else 0 for text in SAID])
    assert checked >= 30


@pytest.mark.parametrize("sharpness", [0.5, 8.0])
def test_long_utterances_score_as_in_speechbrain(sharpness: float) -> None:
    """Thirty seconds, two hypotheses; whose frames hardly say anything, or are all but certain."""
    log_probs, size = frames(1, 750, 31, sharpness), 30
    texts = torch.randint(0, size, (2, 12), generator=torch.Generator().manual_seed(1))
    texts[:, 5] = texts[:, 4]  # said twice
    ours = CTCPrefixScorer(log_probs, torch.tensor([740]))
    # There BLANK, which is the end of a text too, comes first.
    theirs = CTCPrefixScore(log_probs[:, :740].roll(1, dims=2).float(), torch.tensor([740]), blank_index=0, eos_index=0)
    state, memory, last = select(ours.init_state(size), torch.tensor([0, 0])), None, torch.full((2,), size)
    everything = torch.arange(size).expand(2, -1)
    for at in range(texts.size(1)):
        scores, ends, state = ours.step(last, everything, state)
        expected, memory = theirs.forward_step((last + 1) % (size + 1), memory)
        torch.testing.assert_close(torch.cat([ends.unsqueeze(1), scores], dim=1).float(), expected, atol=2e-2, rtol=2e-3)
        last = texts[:, at]
        memory = theirs.permute_mem(memory, (last + 1 + torch.tensor([0, size + 1])).unsqueeze(0))


def test_only_what_ctc_was_asked_about_can_be_said() -> None:
    """Two tokens for a beam of one, and the end; the mean of both for these."""
    of_decoder = torch.log_softmax(torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0]]), dim=-1)
    log_probs = frames(1, 6, 5)
    step, state = joint_search(
        lambda token_ids, active, state: (of_decoder, state), StreamingState(), log_probs, torch.tensor([6]), weight=0.25, beam=1
    )
    mixed, _ = step(torch.tensor([4]), torch.tensor([True]), state)
    scorer = CTCPrefixScorer(log_probs, torch.tensor([6]))
    of_ctc, end, _ = scorer.step(torch.tensor([4]), torch.tensor([[0, 2]]), scorer.init_state(2))
    asked = torch.tensor([0, 2, 4])
    expected = 0.75 * of_decoder[0, asked] + 0.25 * torch.cat([of_ctc[0], end]).float()
    torch.testing.assert_close(mixed[0, asked], expected)
    assert torch.isneginf(mixed[0, [1, 3]]).all()
