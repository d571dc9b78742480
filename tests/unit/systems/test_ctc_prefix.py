"""Prefix probabilities of CTC: those that all labellings of all frames sum up to."""

import itertools

import torch

from reallm.systems._ctc_prefix import CTCPrefixScorer

BLANK = 3
LENS = [5, 3, 1]


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def summed(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every text that the frames (N, V) may be, with its probability."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(BLANK + 1), repeat=log_probs.size(0)):
        probability = float(log_probs[torch.arange(len(path)), torch.tensor(path)].sum().exp())
        found[collapsed(path)] = found.get(collapsed(path), 0.0) + probability
    return found


def test_every_step_is_the_ratio_of_two_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.log_softmax(2 * torch.randn(3, 5, BLANK + 1, generator=generator, dtype=torch.float64), dim=-1)
    texts = [summed(row[:length]) for row, length in zip(log_probs, LENS, strict=True)]
    # Two hypotheses of each utterance, each asking for two of the three tokens.
    said = [[0, 0, 1], [2, 0, 0], [1, 2, 1], [2, 2, 2], [0, 1, 0], [1, 1, 2]]
    scorer = CTCPrefixScorer(log_probs.clone(), torch.tensor(LENS))
    state = scorer.init_state(2)
    state = type(state)(*(part.repeat_interleave(2, dim=0) for part in (state.token_ids, state.forward, state.log_probs)))
    last, checked = torch.full((6,), BLANK), 0
    for length in range(4):
        following = torch.tensor([[text[length], (text[length] + 1) % 3] if length < 3 else [0, 1] for text in said])
        scores, state = scorer.step(last, following, state)
        for row, text in enumerate(said):
            utterance, prefix = texts[row // 2], tuple(text[:length])

            def begins(start: tuple[int, ...], of: dict[tuple[int, ...], float] = utterance) -> float:
                return sum(p for text, p in of.items() if text[: len(start)] == start)

            if begins(prefix) == 0:
                continue  # more tokens than frames
            for token in following[row].tolist():
                expected = begins((*prefix, token)) / begins(prefix)
                torch.testing.assert_close(float(scores[row, token].exp()), expected, atol=1e-5, rtol=1e-5)
                checked += 1
            torch.testing.assert_close(float(scores[row, BLANK].exp()), utterance.get(prefix, 0.0) / begins(prefix), atol=1e-5, rtol=1e-5)
        last = torch.tensor([text[length] if length < 3 else 0 for text in said])
    assert checked >= 26
