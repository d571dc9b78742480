"""Tokens to words, while they come: what a token costs does not grow with what was said before it."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from reallm.protocols import TextState, Tokenizer
from reallm.types import Hypothesis, Seconds, SpeechEnd, Word

T = TypeVar("T")
_SPACES = re.compile(r"\s+")


class Text:
    """Text that only grows, of which any beginning may be asked for. Several threads may ask while one writes."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._joined = (0, "")  # so many pieces, for the next one who asks
        self._span = 0  # characters from the first visible one on
        self.characters = 0  # of the text without spaces at either end

    def __len__(self) -> int:
        """How many pieces came so far."""
        return len(self._pieces)

    def append(self, piece: str) -> None:
        """One more piece."""
        self._pieces.append(piece)
        if not self._span:
            piece = piece.lstrip()
        visible = len(piece.rstrip())
        if visible:
            self.characters = self._span + visible
        self._span += len(piece)

    def of(self, pieces: int) -> str:
        """The first so many pieces, without spaces at either end."""
        count, joined = self._joined
        if count > pieces:
            return "".join(self._pieces[:pieces]).strip()
        joined = joined + "".join(self._pieces[count:pieces])
        self._joined = (pieces, joined)
        return joined.strip()


class HypothesisSoFar(Hypothesis):
    """A hypothesis whose text and lists are made when they are first asked for. It equals one that has them, and a copy of it is one."""

    @classmethod
    def of(cls, parts: dict[str, Callable[[], Any]], **rest: Any) -> "HypothesisSoFar":
        """``parts`` make the fields of these names, ``rest`` are all others."""
        made = cls.__new__(cls)
        vars(made).update(rest, _parts=parts)
        return made

    def __getattr__(self, name: str) -> Any:
        """A field that was not asked for before."""
        parts = vars(self).get("_parts", {})
        if name not in parts:
            raise AttributeError(f"a hypothesis has no '{name}'")
        value = parts[name]()
        setattr(self, name, value)
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hypothesis):
            return NotImplemented
        return _fields(self) == _fields(other)

    def __reduce__(self) -> tuple[type[Hypothesis], tuple[Any, ...]]:
        return Hypothesis, _fields(self)


def _fields(hypothesis: Hypothesis) -> tuple[Any, ...]:
    return tuple(getattr(hypothesis, field.name) for field in dataclasses.fields(Hypothesis))


class Transcript:
    """The words of one stream: text between spaces of the tokenizer's incremental decoding.

    A word starts where its first token starts and ends where its last one ends; words do not overlap. Its confidence
    is the probability of its tokens, each given all before it: exp of the sum of their log-probabilities. It was
    emitted when its last token was. A token that is only a part of a character counts for the word which it becomes part
    of; one that is nothing but space counts for no word.

    Args:
        tokenizer: decodes the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._text_state = TextState()
        # These only grow: a result is how long they were.
        self._text = Text()
        self._token_ids: list[int] = []
        self._words: list[Word] = []  # all but the last one
        self._speech_ends: list[SpeechEnd] = []
        self._score = 0.0
        # Of the last word, which may go on if it is open, and for long where a language has no spaces.
        self._open = False
        self._parts: list[str] = []
        self._start, self._end, self._word_score, self._emitted_at = 0.0, 0.0, 0.0, 0.0
        self._held: tuple[Seconds, float] | None = None  # start and score of tokens without visible text yet

    def append(self, token_id: int, log_prob: float, start: Seconds, end: Seconds, emitted_at: Seconds) -> None:
        """One more token, spoken from ``start`` to ``end`` as far as is known."""
        text, self._text_state = self._tokenizer.decode_step(token_id, self._text_state)
        self._token_ids.append(token_id)
        self._score += log_prob
        self._text.append(text)
        held_start, held_score = self._held or (start, 0.0)
        start, log_prob = min(start, held_start), log_prob + held_score
        self._held = (start, log_prob) if self._text_state.pending and not text else None
        for number, part in enumerate(_SPACES.split(text)):
            if number > 0:
                self._open = False
            if part:
                self._extend(part, log_prob, start, end, emitted_at)

    def _extend(self, part: str, log_prob: float, start: Seconds, end: Seconds, emitted_at: Seconds) -> None:
        if self._open:
            start, end = self._start, max(end, self._end)
            log_prob += self._word_score
        else:
            start = max(start, self._end)
            end = max(start, end)
            self._words += self._last()()
            self._parts = []
        self._parts.append(part)
        self._start, self._end, self._word_score, self._emitted_at = start, end, log_prob, emitted_at
        self._open = True

    def _last(self) -> Callable[[], list[Word]]:
        """What makes the last word as it is now, if there is one."""
        parts, count = self._parts, len(self._parts)
        rest = (self._start, self._end, math.exp(min(0.0, self._word_score)), self._emitted_at)
        return lambda: [Word("".join(parts[:count]), *rest)] if count else []

    def end_speech(self, at: Seconds, emitted_at: Seconds) -> None:
        """The speaker has stopped, as was known after ``at`` seconds of audio. Tokens without text count for nothing said."""
        characters, before = self._text.characters, self._speech_ends[-1].characters if self._speech_ends else 0
        if characters > before:
            self._speech_ends.append(SpeechEnd(at, len(self._words) + bool(self._parts), characters, emitted_at))

    def preview(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens would add."""
        state, pieces = self._text_state, []
        for token_id in token_ids:
            text, state = self._tokenizer.decode_step(token_id, state)
            pieces.append(text)
        return "".join(pieces)

    @property
    def token_count(self) -> int:
        """How many tokens came so far."""
        return len(self._token_ids)

    @property
    def speech_end_count(self) -> int:
        """How often speech ended so far."""
        return len(self._speech_ends)

    def hypothesis(self, cap_hits: int, is_final: bool) -> Hypothesis:
        """All words so far; later tokens do not change what was returned."""
        words, last = len(self._words), self._last()
        parts: dict[str, Callable[[], Any]] = {
            "text": partial(self._text.of, len(self._text)),
            "token_ids": partial(_first, self._token_ids, len(self._token_ids)),
            "words": lambda: self._words[:words] + last(),
            "speech_ends": partial(_first, self._speech_ends, len(self._speech_ends)),
        }
        return HypothesisSoFar.of(parts, score=self._score, cap_hits=cap_hits, is_final=is_final, n_best=[])


def _first(of: list[T], count: int) -> list[T]:
    return of[:count]
