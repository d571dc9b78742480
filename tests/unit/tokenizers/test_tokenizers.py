"""Every tokenizer: text there and back, one token at a time, files, errors."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reallm.errors import InputError
from reallm.protocols import TextState, Tokenizer
from reallm.registry import catalogue, spec_of
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.sentencepiece import SentencePieceTokenizer
from reallm.tokenizers.word import WordTokenizer

TINY = {name: cls.tiny() for name, cls in catalogue("tokenizer").items()}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"]
each = pytest.mark.parametrize("tokenizer", TINY.values(), ids=TINY.keys())


def joined(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    state, text = TextState(), ""
    for token_id in token_ids:
        part, state = tokenizer.decode_step(token_id, state)
        text += part
    return text


def test_catalogue_has_them():
    assert {"character", "sentencepiece", "word"} <= set(TINY)


@each
def test_contract(tokenizer: Tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert Path(spec_of(tokenizer).kwargs["path"]).is_file()
    ids = tokenizer.encode("the lazy dog")
    assert ids and all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


@each
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_joined_steps_are_the_decoded_text(tokenizer: Tokenizer, data: st.DataObject):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    assert joined(tokenizer, ids).rstrip(" ") == tokenizer.decode(ids)
    assert not joined(tokenizer, ids).startswith(" ")


@each
@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=6), space=st.sampled_from([" ", "  ", "\t", "\n"]))
def test_text_there_and_back(tokenizer: Tokenizer, words: list[str], space: str):
    assert tokenizer.decode(tokenizer.encode(space + space.join(words) + space)) == " ".join(words)


@each
def test_unknown_is_named(tokenizer: Tokenizer):
    text = "the lazy dög" if isinstance(tokenizer, WordTokenizer | CharacterTokenizer) else None
    if text is None:
        assert tokenizer.decode(tokenizer.encode("the dög")) == "the dög"  # byte fallback
    else:
        with pytest.raises(InputError, match=r"d?ög?.*train the tokenizer on it"):
            tokenizer.encode(text)


def test_unknown_pieces_without_byte_fallback(tmp_path: Path):
    tokenizer = SentencePieceTokenizer.train(["a b ab ba"] * 3, tmp_path / "x.model", vocab_size=6)
    with pytest.raises(InputError, match=r"'c' \(U\+0063 LATIN SMALL LETTER C\), 'é'"):
        tokenizer.encode("ab cé")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12))
def test_bytes_come_out_as_whole_characters(text: str):
    tokenizer = TINY["sentencepiece"]
    text = " ".join(text.replace("\u2581", "").split())  # the mark itself stands for a space
    ids = tokenizer.encode(text)
    assert joined(tokenizer, ids) == text == tokenizer.decode(ids)


def test_pieces_of_one_character_wait_for_the_last():
    tokenizer = TINY["sentencepiece"]
    ids = tokenizer.encode("ß")[-2:]
    first, state = tokenizer.decode_step(ids[0], TextState(started=True))
    assert (first, state.pending) == ("", "ß".encode()[:1])
    assert tokenizer.decode_step(ids[1], state) == ("ß", TextState(started=True))
    assert tokenizer.decode(ids[:1]) == ""
    assert tokenizer.decode([ids[0], *tokenizer.encode("dog")]) == "\ufffd dog"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_agrees_with_the_sentencepiece_library(words: list[str]):
    tokenizer = TINY["sentencepiece"]
    ids = tokenizer.encode(" ".join(words))
    assert tokenizer.decode(ids) == tokenizer._model.decode(ids)


@pytest.mark.parametrize("cls", [CharacterTokenizer, WordTokenizer, SentencePieceTokenizer])
def test_training_is_repeatable_and_fingerprints_tell_vocabularies_apart(cls: type, tmp_path: Path):
    options = {"vocab_size": 10} if cls is SentencePieceTokenizer else {}
    first = cls.train(["one two", "six"] * 3, tmp_path / "a", **options)
    again = cls.train(["six", "one two"] * 3, tmp_path / "b", **options)
    other = cls.train(["one two", "ten big"] * 3, tmp_path / "c", **options)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    if cls is not SentencePieceTokenizer:
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("cls", [CharacterTokenizer, WordTokenizer, SentencePieceTokenizer])
def test_bad_files(cls: type, tmp_path: Path):
    path = tmp_path / "vocabulary"
    with pytest.raises(InputError, match="does not exist"):
        cls(path)
    path.write_text('{"a": 1}')
    with pytest.raises(InputError, match=str(path)):
        cls(path)
    with pytest.raises(InputError, match="transcripts are empty"):
        cls.train(["", " "], path)


@pytest.mark.parametrize(
    ("cls", "symbols"), [(CharacterTokenizer, ["a", "bc"]), (CharacterTokenizer, ["a", "\t"]), (WordTokenizer, ["a b"])]
)
def test_lists_of_something_else(cls: type, symbols: list[str], tmp_path: Path):
    path = tmp_path / "symbols.json"
    path.write_text(json.dumps(symbols))
    with pytest.raises(InputError, match="is not"):
        cls(path)


def test_symbol_listed_twice(tmp_path: Path):
    (tmp_path / "symbols.json").write_text('["a", "b", "a"]')
    with pytest.raises(InputError, match="'a' twice"):
        CharacterTokenizer(tmp_path / "symbols.json")


@pytest.mark.parametrize(("size", "advice"), [(10_000, "at most 8"), (3, "at least 6")])
def test_vocabulary_sizes_that_do_not_fit(size: int, advice: str, tmp_path: Path):
    with pytest.raises(InputError, match=advice):
        SentencePieceTokenizer.train(["abc abd"] * 3, tmp_path / "x.model", vocab_size=size)
    assert list(tmp_path.iterdir()) == []
