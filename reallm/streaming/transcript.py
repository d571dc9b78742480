"""Tokens to words, while they come."""

import math
import re
from collections.abc import Sequence

from reallm.protocols import TextState, Tokenizer
from reallm.types import Hypothesis, Seconds, SpeechEnd, Word

_SPACES = re.compile(r"\s+")


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
        self._pieces: list[str] = []
        self._token_ids: list[int] = []
        self._words: list[Word] = []
        self._speech_ends: list[SpeechEnd] = []
        self._score = 0.0
        self._open = False  # the last word may go on
        self._word_score = 0.0
        self._held: tuple[Seconds, float] | None = None  # start and score of tokens without visible text yet

    def append(self, token_id: int, log_prob: float, start: Seconds, end: Seconds, emitted_at: Seconds) -> None:
        """One more token, spoken from ``start`` to ``end`` as far as is known."""
        text, self._text_state = self._tokenizer.decode_step(token_id, self._text_state)
        self._token_ids.append(token_id)
        self._score += log_prob
        self._pieces.append(text)
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
            last = self._words[-1]
            self._word_score += log_prob
            word, start, end = last.word + part, last.start, max(end, last.end)
        else:
            self._word_score = log_prob
            word, start = part, max(start, self._words[-1].end if self._words else 0.0)
            end = max(start, end)
        extended = Word(word, start, end, math.exp(min(0.0, self._word_score)), emitted_at)
        if self._open:
            self._words[-1] = extended
        else:
            self._words.append(extended)
        self._open = True

    def end_speech(self, at: Seconds, emitted_at: Seconds) -> None:
        """The speaker has stopped, as was known after ``at`` seconds of audio. Tokens without text count for nothing said."""
        characters, before = len(self._text()), self._speech_ends[-1].characters if self._speech_ends else 0
        if characters > before:
            self._speech_ends.append(SpeechEnd(at, len(self._words), characters, emitted_at))

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

    def _text(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0].strip()

    def hypothesis(self, cap_hits: int, is_final: bool) -> Hypothesis:
        """All words so far; later tokens do not change what was returned."""
        words, ends = list(self._words), list(self._speech_ends)
        return Hypothesis(self._text(), list(self._token_ids), words, self._score, cap_hits, is_final, speech_ends=ends)
