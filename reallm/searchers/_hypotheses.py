"""The hypotheses of a beam search. Legend: reallm/types.py; K hypotheses a row, P tokens that a hypothesis may hold back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reallm.searchers._biasing import Table
from reallm.streaming.state import StreamingState, map_states


@dataclass
class Hypotheses(StreamingState):
    """K hypotheses a row, in no order. What all of them share of their text has been committed, and is not in here."""

    live: Tensor  # (B, K) bool, the slot holds a hypothesis
    score: Tensor  # (B, K) float64, what hypotheses are compared by
    symbols: Tensor  # (B, K) int64, tokens in the response so far
    position: Tensor  # (B, K) int64, decoder positions consumed
    cap_hits: Tensor  # (B, K) int64, responses cut, those aside that were reported
    silence: Tensor  # (B, K) int64, speech embeddings up to now whose answers were silent, see _end_of_speech.py
    said: Tensor  # (B, K) bool, something was said since speech ended
    phrase: Tensor  # (B, K) int64, where they stand in the phrases of their stream
    length: Tensor  # (B, K) int64, tokens held back
    token_ids: Tensor  # (B, K, P) int64, the tokens held back, then -1
    frame: Tensor  # (B, K, P) int64, the speech embedding that each answers, then -1
    log_probs: Tensor  # (B, K, P) float32, of each given all before it

    @classmethod
    def start(cls, batch: int, beam: int, size: int, phrase: int, device: torch.device | str) -> "Hypotheses":
        """One empty hypothesis a row, which stands at ``phrase`` in its phrases."""
        count = torch.zeros(batch, beam, dtype=torch.int64, device=device)
        text = torch.full((batch, beam, size), -1, device=device)
        live = count.clone().bool()
        live[:, 0] = True
        score = torch.zeros(batch, beam, dtype=torch.float64, device=device)
        log_probs = torch.zeros(batch, beam, size, device=device)
        counts = {name: count.clone() for name in ("symbols", "position", "cap_hits", "silence", "length")}
        flags = {"live": live, "said": count.bool(), "phrase": count + phrase}
        return cls(score=score, **counts, **flags, token_ids=text, frame=text.clone(), log_probs=log_probs)

    @property
    def ranking(self) -> Tensor:
        """(B, K): the score, and -inf where there is no hypothesis."""
        return self.score.masked_fill(~self.live, -torch.inf)

    def pick(self, index: Tensor) -> "Hypotheses":
        """The hypotheses in the slots ``index`` (B, C) of each row, copied."""
        rows = torch.arange(index.size(0), device=index.device).unsqueeze(1)
        return map_states(lambda t: t[rows, index], self)

    def append(self, where: Tensor, token_ids: Tensor, frame: Tensor, log_probs: Tensor) -> None:
        """One more token, ``token_ids`` (B, K) that answers embedding ``frame`` (B, 1), of the hypotheses ``where`` (B, K) bool."""
        size = self.token_ids.size(2)
        at = (torch.arange(size, device=where.device) == self.length.unsqueeze(2)) & where.unsqueeze(2)
        self.token_ids = torch.where(at, token_ids.unsqueeze(2), self.token_ids)
        self.frame = torch.where(at, frame.unsqueeze(2), self.frame)
        self.log_probs = torch.where(at, log_probs.unsqueeze(2), self.log_probs)
        self.length = self.length + where

    def equal(self, comparable: Tensor) -> Tensor:
        """(B, K, K) bool: both are ``comparable`` (B, K) bool and of the same text, whenever it was said; true on the diagonal."""
        same = (self.token_ids.unsqueeze(2) == self.token_ids.unsqueeze(1)).all(-1)
        same &= comparable.unsqueeze(2) & comparable.unsqueeze(1)
        return same | torch.eye(same.size(1), dtype=torch.bool, device=same.device)

    def best(self) -> "Hypotheses":
        """The best hypothesis of each row, K = 1."""
        return self.pick(self.ranking.argmax(1, keepdim=True))

    def shared(self) -> Tensor:
        """(B,): how many of the tokens held back all hypotheses have in common, times included: these can never change."""
        best = self.best()
        same = (self.token_ids == best.token_ids) & (self.frame == best.frame) & (best.token_ids >= 0)
        common = same.long().cumprod(2).sum(2)
        return torch.where(self.live, common, self.token_ids.size(2)).amin(1)

    def apart(self, most: int) -> Tensor:
        """(B,) bool: a hypothesis has more than ``most`` tokens beyond what all share."""
        return (self.live & (self.length - self.shared().unsqueeze(1) > most)).any(1)

    def end_phrases(self, table: Table, rows: Tensor) -> None:
        """Take back, in ``rows`` (B,) bool, whose text ends here, what is not a complete phrase."""
        self.score = self.score - torch.where(rows.unsqueeze(1), table.pending[self.phrase], 0)

    def silent(self, least: Tensor) -> Tensor:
        """(B,) bool: the best hypothesis has said something, and nothing since for ``least`` (B,) embeddings."""
        silent = self.said & (self.silence >= least.unsqueeze(1))
        return silent.gather(1, self.ranking.argmax(1, keepdim=True)).squeeze(1)

    def keep_best(self, rows: Tensor) -> None:
        """Drop all but the best hypothesis in ``rows`` (B,) bool."""
        slots = torch.arange(self.live.size(1), device=rows.device)
        best = slots == self.ranking.argmax(1, keepdim=True)
        self.live = self.live & (best | ~rows.unsqueeze(1))

    def drop_text(self, count: Tensor) -> None:
        """Forget the first ``count`` (B,) tokens held back by each row's hypotheses."""
        size = self.token_ids.size(2)
        self.length = (self.length - count.unsqueeze(1)).clamp(min=0)
        index = torch.arange(size, device=count.device) + count.view(-1, 1, 1)
        gone = index >= size
        index = index.clamp(max=size - 1).expand_as(self.token_ids)
        self.token_ids = self.token_ids.gather(2, index).masked_fill(gone, -1)
        self.frame = self.frame.gather(2, index).masked_fill(gone, -1)
        self.log_probs = self.log_probs.gather(2, index)
