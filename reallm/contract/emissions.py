"""What searchers and systems put out, collected over a stream and compared."""

from dataclasses import dataclass, field

import torch

from reallm.contract.requirement import require
from reallm.types import Emission

LOG_PROB_TOLERANCE = 1e-4  # they are float32


@dataclass
class Answers:
    """All that one row has put out."""

    token_ids: list[int] = field(default_factory=list)
    frame: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    cap_hits: int = 0

    def add(self, emission: Emission, row: int) -> None:
        """Append row ``row`` of an emission."""
        size = int(emission.lens[row])
        self.token_ids += emission.token_ids[row, :size].tolist()
        self.frame += emission.frame[row, :size].tolist()
        self.log_probs += emission.log_probs[row, :size].tolist()
        self.cap_hits += int(emission.cap_hits[row])


def collect(*emissions: Emission) -> list[Answers]:
    """The answers of each row, over several emissions."""
    rows = [Answers() for _ in range(emissions[0].lens.size(0))]
    for emission in emissions:
        for row, answers in enumerate(rows):
            answers.add(emission, row)
    return rows


def require_well_formed(answers: Answers, what: str) -> None:
    """Frames do not go back, and log-probabilities are finite and not above 0."""
    require(all(a <= b for a, b in zip(answers.frame, answers.frame[1:], strict=False)), f"{what}: frames go back: {answers.frame}")
    require(all(f >= 0 for f in answers.frame), f"{what}: a frame is below 0: {answers.frame}")
    wrong = [p for p in answers.log_probs if not -float("inf") < p <= LOG_PROB_TOLERANCE]
    require(not wrong, f"{what}: log-probabilities {wrong}")


def require_same_answers(got: Answers, expected: Answers, what: str) -> None:
    """The same tokens at the same frames, with the same log-probabilities, up to float32."""
    require(got.token_ids == expected.token_ids, f"{what}: tokens {got.token_ids}, expected {expected.token_ids}")
    require(got.frame == expected.frame, f"{what}: frames {got.frame}, expected {expected.frame}")
    require(got.cap_hits == expected.cap_hits, f"{what}: {got.cap_hits} responses cut, expected {expected.cap_hits}")
    close = torch.allclose(torch.tensor(got.log_probs), torch.tensor(expected.log_probs), atol=LOG_PROB_TOLERANCE, rtol=LOG_PROB_TOLERANCE)
    require(close, f"{what}: log-probabilities {got.log_probs}, expected {expected.log_probs}")
