"""What searchers and systems put out, collected over a stream and compared."""

from dataclasses import dataclass, field

import torch

from reallm.contract.requirement import require
from reallm.types import Emission

LOG_PROB_TOLERANCE = 1e-4  # they are float32
MOST_STEPS = 10_000  # of a bounded search, until nothing is pending


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


class Backlog:
    """What a bounded search still owes its rows, as it says in ``Emission.pending`` and ``Emission.full``.

    Args:
        rows: B.
    """

    def __init__(self, rows: int) -> None:
        self.pending = self.full = torch.zeros(rows, dtype=torch.bool)
        self._steps = 0

    def hear(self, emission: Emission) -> None:
        """One more step. Raises ContractError for a row that takes nothing more in and owes nothing, and for steps without end."""
        none = torch.zeros_like(self.pending)
        self.pending = none if emission.pending is None else emission.pending
        self.full = none if emission.full is None else emission.full
        self._steps += 1
        require(not bool((self.full & ~self.pending).any()), f"full {self.full.tolist()}, of which are pending {self.pending.tolist()}")
        require(self._steps < MOST_STEPS, f"pending after {MOST_STEPS} steps: {self.pending.tolist()}")


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
