"""Phrases as an automaton, against the definition of what a text is worth."""

import copy
import gc
import itertools
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reallm.errors import InputError
from reallm.searchers import _biasing
from reallm.searchers._biasing import NO_PHRASES, PhraseTable, compile_phrases
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.huggingface import HuggingFaceTokenizer
from reallm.tokenizers.sentencepiece import SentencePieceTokenizer
from reallm.tokenizers.word import WordTokenizer


@pytest.fixture
def letters(tmp_path: Path) -> CharacterTokenizer:
    return CharacterTokenizer.train(["a b"], tmp_path / "letters.json")


def gains(automaton: Any, tokens: list[int]) -> list[float]:
    """What each token of a text adds, and the end."""
    state, found = automaton.start, []
    for token in tokens:
        found.append(float(automaton.gain[state, token]))
        state = int(automaton.next[state, token])
    return [*found, -float(automaton.pending[state])]


def value(text: str, phrases: list[str], ended: bool) -> int:
    """Characters of a text that are in a complete phrase, or at its end in one that may be going on, with the space before it."""
    text = " " + text
    counted, tail = set[int](), ""
    for phrase in (" " + one for one in phrases):
        for at in range(len(text)):
            if text.startswith(phrase, at) and (text[at + len(phrase) :][:1] == " " or (ended and at + len(phrase) == len(text))):
                counted |= set(range(at, at + len(phrase)))
        for size in range(len(phrase) + 1):
            if not ended and size and text.endswith(phrase[:size]) and size > len(tail):
                tail = phrase[:size]
    counted |= set(range(len(text) - len(tail), len(text)))
    return len(counted - {0})


def test_the_gains_of_a_text_sum_up_to_its_value(letters: CharacterTokenizer) -> None:
    random = np.random.default_rng(0)
    worth = taken_back = 0
    for _ in range(60):
        words = ["".join(random.choice(["a", "b"], random.integers(1, 4))) for _ in range(6)]
        phrases = [" ".join(random.choice(words, random.integers(1, 4))) for _ in range(random.integers(1, 6))]
        each = 0.5 * sum(len(one.split()) for one in phrases) / sum(len(one) + 1 for one in phrases)
        automaton = compile_phrases(phrases, 0.5, letters)
        for _ in range(12):
            text = " ".join(random.choice(words, random.integers(1, 9)))
            found = gains(automaton, letters.encode(text))
            for size, total in enumerate(itertools.accumulate(found[:-1]), 1):
                assert total == pytest.approx(each * value(text[:size], phrases, ended=False), abs=1e-5), (phrases, text[:size])
            assert sum(found) == pytest.approx(each * value(text, phrases, ended=True), abs=1e-5), (phrases, text)
            worth, taken_back = worth + (sum(found) > 1e-5), taken_back + any(gain < 0 for gain in found)
    assert worth > 300 and taken_back > 300


def test_a_phrase_is_whole_words(letters: CharacterTokenizer) -> None:
    automaton = compile_phrases(["ab a"], 2.5, letters)  # 1 a character, and the spaces
    for text, expected in (("ab a", 4), ("ab a b", 4), ("b ab a", 5), ("ab aa", 0), ("bab a", 0), ("ab", 0), ("ab ab ab a", 5)):
        assert sum(gains(automaton, letters.encode(text))) == expected, text


def test_every_tokenizer_begins_words_in_its_own_way(tmp_path: Path) -> None:
    for kind in (CharacterTokenizer, WordTokenizer, SentencePieceTokenizer, HuggingFaceTokenizer):
        tokenizer: Any = kind.tiny(tmp_path)  # type: ignore[attr-defined]
        tokens = len(tokenizer.encode("the brown fox")) - len(tokenizer.encode("the")) + len(tokenizer.encode("lazy dog dog"))
        tokens -= len(tokenizer.encode("lazy dog"))
        automaton = compile_phrases(["brown fox", "dog"], tokens / 3, tokenizer)  # 1 a token
        size = {
            text: len(tokenizer.encode(text)) for text in ("", "the", "the brown fox", "brown fox", "dog", "dog dog", "lazy", "lazy dog")
        }
        assert sum(gains(automaton, tokenizer.encode("brown fox"))) == size["brown fox"], kind
        assert sum(gains(automaton, tokenizer.encode("the brown fox jumps"))) == size["the brown fox"] - size["the"], kind
        assert sum(gains(automaton, tokenizer.encode("lazy dog"))) == size["lazy dog"] - size["lazy"], kind
        assert sum(gains(automaton, tokenizer.encode("dog dog"))) == size["dog dog"], kind
        for text in ("brown", "the fox", "lazy", "quick brown dogs" if kind is not WordTokenizer else "fox brown"):
            assert sum(gains(automaton, tokenizer.encode(text))) == 0, (kind, text)
    words = WordTokenizer.tiny(tmp_path)
    assert gains(compile_phrases(["dog"], 2.0, words), words.encode("the dog dog")) == [0, 2, 2, 0]


def test_scripts_without_spaces_have_their_phrases_anywhere(tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer.train(["我在北京住 a"], tmp_path / "han.json")
    automaton = compile_phrases(["北京"], 3.0, tokenizer)
    assert sum(gains(automaton, tokenizer.encode("我在北京住"))) == 2, "of three tokens, with the space"
    assert sum(gains(automaton, tokenizer.encode("我在北住"))) == 0


def test_phrases_that_cannot_be_spelled_are_named_with_their_characters(tmp_path: Path, letters: CharacterTokenizer) -> None:
    for phrases, said in (
        (["a", "añb"], r"^phrase 'añb': 'ñ' \(U\+00F1 LATIN SMALL LETTER N WITH TILDE\) in 'añb' not known to .*; or leave the phrase out"),
        (["a", "  "], r"^phrase '  ' is empty: leave it out"),
    ):
        with pytest.raises(InputError, match=said):
            compile_phrases(phrases, 1.0, letters)
    with pytest.raises(InputError, match=r"^phrase 'dig': 'dig' \(did you mean 'dog'\?\) in 'dig' not known to"):
        compile_phrases(["dig"], 1.0, WordTokenizer.tiny(tmp_path))
    table = PhraseTable()
    with pytest.raises(InputError, match=r"^phrases 'ab': give a list of them, \['ab'\]"):
        table.add("ab", 1.0, letters)
    for bonus in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^phrase_bonus .*: log-probability that a word of a phrase is given, above 0"):
            table.add(["ab"], bonus, letters)


def test_a_tokenizers_own_words_about_a_phrase_are_kept_whole() -> None:
    class Plugin(CharacterTokenizer):
        def encode(self, text: str) -> list[int]:
            raise InputError("no colon in this")

    with pytest.raises(InputError, match=r"^phrase 'ab': no colon in this; or leave the phrase out") as caught:
        compile_phrases(["ab"], 1.0, Plugin.tiny())
    assert isinstance(caught.value.__cause__, InputError)


def test_streams_go_on_while_a_table_is_made_larger(letters: CharacterTokenizer) -> None:
    table, device, found = PhraseTable(), torch.device("cpu"), list[object]()
    held = table.add(["a"], 1.0, letters)
    with _biasing._lock:  # as by whoever makes it
        asking = threading.Thread(target=lambda: found.append(table.on(device)), daemon=True)
        asking.start()
        asking.join(30.0)
        assert len(found) == 1
    assert found[0] is table.on(device) is not None and held is not None


def test_more_than_fits_is_refused(letters: CharacterTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reallm.searchers._biasing.LARGEST", 1 << 10)
    with pytest.raises(InputError, match=r"^2 phrases take more than 0 MB in a vocabulary of 3 tokens: give fewer"):
        compile_phrases(["a" * 20, "b" * 30], 1.0, letters)


def test_a_table_holds_equal_lists_once_and_as_long_as_they_are_used(letters: CharacterTokenizer) -> None:
    table, device = PhraseTable(), torch.device("cpu")
    assert table.on(device) is None and table.start == NO_PHRASES
    first, second = table.add(["a"], 1.0, letters), table.add(["ab", "b"], 1.0, letters)
    assert table.add(["ab", "b"], 1.0, letters) is second and table.add(["ab", "b"], 2.0, letters) is not second
    for held, phrases in ((first, ["a"]), (second, ["ab", "b"])):
        own, state, found = compile_phrases(phrases, 1.0, letters), held.start, []
        tokens, now = letters.encode("b ab a"), table.on(device)
        assert now is not None
        for token in tokens:
            found.append(float(now.gain[state, token]))
            state = int(now.next[state, token])
        assert [*found, -float(now.pending[state])] == gains(own, tokens)
    assert not now.gain[NO_PHRASES].any() and not now.next[NO_PHRASES].any()
    begin, rows = first.begin, len(now.pending)
    del first, held
    gc.collect()
    for bonus in range(3, 40):
        again = table.add(["b"], float(bonus), letters)
        del again
    again = table.add(["b"], 9.0, letters)
    assert again.begin == begin and len(table.on(device).pending) == rows, "in the room of one that left"  # type: ignore[union-attr]
    del again, second
    gc.collect()
    assert table.on(device) is None


def test_a_default_goes_with_the_searcher_to_other_processes(letters: CharacterTokenizer) -> None:
    table = PhraseTable()
    passing = table.add(["a"], 1.0, letters)
    table.default = table.add(["ab"], 1.0, letters)
    for other in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        now = other.on(torch.device("cpu"))
        assert now is not None and other.default.key == table.default.key
        assert float(now.gain[other.start, letters.encode("a")[0]]) == pytest.approx(1 / 3)
    assert passing.start != table.start
