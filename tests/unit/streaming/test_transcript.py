"""Tokens to words."""

import copy
import math

import pytest

from reallm.protocols import TextState
from reallm.streaming.transcript import Transcript
from reallm.types import Hypothesis


class Pieces:
    """A tokenizer whose tokens are these pieces, some of which are bytes of one character."""

    pieces = ["ze", "ro", " one", " ", "two three", b"\xc3", b"\xa9", "", "four "]

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


def test_a_result_stays_what_it_was_whenever_it_is_read() -> None:
    made, tokens, results, expected = Transcript(Pieces()), [3, 0, 1, 2, 1, 3, 4, 5, 6, 7, 3, 2, 8, 0], [], []  # type: ignore[arg-type]
    for number, token in enumerate(tokens):
        made.append(token, -0.1, number, number + 1, number + 2)
        if number % 3 == 0:
            made.end_speech(number + 1, number + 2)
        results.append(made.hypothesis(number, False))
        expected.append(copy.copy(made.hypothesis(number, False)))  # which is read at once
    for number in [*range(0, len(tokens), 2), *range(len(tokens))]:  # a later one before an earlier one too
        now, then = results[number], expected[number]
        assert type(then) is Hypothesis and now == then == now
        assert (now.token_ids, now.text.split()) == (tokens[: number + 1], [word.word for word in now.words])
        for end in now.speech_ends:
            before = now.text[: end.characters]
            assert before == before.strip() and len(before.split()) == end.words
    assert results[0] != results[3] and results[0].text == "" and results[0].words == []
    results[3].words.clear()
    assert expected[3].words and made.hypothesis(0, False).words and results[4].words, "a result's lists are its own"
    with pytest.raises(AttributeError, match="a hypothesis has no 'test'"):
        results[0].test  # noqa: B018
