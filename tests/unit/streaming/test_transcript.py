"""Tokens to words."""

import math

import pytest

from reallm.protocols import TextState
from reallm.streaming.transcript import Transcript


class Pieces:
    """A tokenizer whose tokens are these pieces, some of which are bytes of one character."""

    pieces = ["ze", "ro", " one", " ", "two three", b"\xc3", b"\xa9", ""]

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        piece = self.pieces[token_id]
        if isinstance(piece, str):
            return piece, TextState(True)
        joined = state.pending + piece
        try:
            return joined.decode(), TextState(True)
        except UnicodeDecodeError:
            return "", TextState(True, joined)


def transcript(*tokens: tuple[int, float, float, float, float]) -> Transcript:
    """Tokens as (id, log-probability, start, end, emitted at)."""
    made = Transcript(Pieces())  # type: ignore[arg-type]
    for token in tokens:
        made.append(*token)
    return made


def test_a_word_is_all_of_its_tokens() -> None:
    hypothesis = transcript((0, -0.1, 0.2, 0.4, 0.5), (1, -0.2, 0.4, 0.7, 0.9), (2, -0.3, 0.8, 1.0, 1.2)).hypothesis(3, True)
    zero, one = hypothesis.words
    assert (zero.word, zero.start, zero.end, zero.emitted_at) == ("zero", 0.2, 0.7, 0.9)
    assert zero.confidence == pytest.approx(math.exp(-0.3))
    assert (one.word, one.start, one.end, one.emitted_at) == ("one", 0.8, 1.0, 1.2)
    assert (hypothesis.text, hypothesis.token_ids, hypothesis.cap_hits, hypothesis.is_final) == ("zero one", [0, 1, 2], 3, True)
    assert hypothesis.score == pytest.approx(-0.6)


def test_words_do_not_overlap_and_times_do_not_go_back() -> None:
    words = transcript((0, -0.1, 0.2, 0.9, 1.0), (1, -0.1, 0.3, 0.8, 1.0), (2, -0.1, 0.5, 0.6, 1.0)).hypothesis(0, False).words
    assert [(w.start, w.end) for w in words] == [(0.2, 0.9), (0.9, 0.9)]


def test_spaces_end_words_and_count_for_none() -> None:
    words = transcript((0, -0.1, 0.0, 0.1, 0.2), (3, -5.0, 0.1, 0.2, 0.3), (1, -0.1, 0.3, 0.4, 0.5)).hypothesis(0, False).words
    assert [w.word for w in words] == ["ze", "ro"]
    assert [w.confidence for w in words] == [pytest.approx(math.exp(-0.1))] * 2
    assert words[0].emitted_at == 0.2


def test_one_token_may_bring_two_words() -> None:
    words = transcript((4, -0.1, 0.0, 0.4, 0.5)).hypothesis(0, False).words
    assert [(w.word, w.emitted_at) for w in words] == [("two", 0.5), ("three", 0.5)]


def test_parts_of_a_character_count_for_its_word() -> None:
    words = transcript((5, -0.1, 0.1, 0.2, 0.2), (6, -0.2, 0.2, 0.3, 0.4)).hypothesis(0, False).words
    assert [(w.word, w.start, w.end, w.emitted_at) for w in words] == [("é", 0.1, 0.3, 0.4)]
    assert words[0].confidence == pytest.approx(math.exp(-0.3))
