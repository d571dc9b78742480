"""Times carried from vocabulary to vocabulary."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reallm.aligners.retokenize import retokenize, spread, token_pieces, word_times
from reallm.errors import InputError
from reallm.protocols import TextState, Tokenizer
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.sentencepiece import SentencePieceTokenizer
from reallm.tokenizers.word import WordTokenizer
from reallm.types import Alignment

TOKENIZERS = {"character": CharacterTokenizer.tiny(), "word": WordTokenizer.tiny(), "sentencepiece": SentencePieceTokenizer.tiny()}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"]


def alignment_of(ids: list[int], spans: list[tuple[int, int]]) -> Alignment:
    start, end = (torch.tensor([span[side] for span in spans], dtype=torch.int64) for side in (0, 1))
    scores = -torch.arange(1, len(ids) + 1, dtype=torch.float64)
    return Alignment(torch.tensor(ids, dtype=torch.int64), start, end, scores, 8000, float(scores.sum()) - 7)


def rows(alignment: Alignment) -> list[tuple[int, int]]:
    return list(zip(alignment.start_samples.tolist(), alignment.end_samples.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(TOKENIZERS)),
    st.sampled_from(list(TOKENIZERS)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_any_vocabulary_to_any(source: str, target: str, words: list[str], random):
    tokenizer_from, tokenizer_to = TOKENIZERS[source], TOKENIZERS[target]
    ids = tokenizer_from.encode(" ".join(words))
    times = sorted(random.sample(range(80_000), 2 * len(ids)))
    alignment = alignment_of(ids, list(zip(times[::2], times[1::2], strict=True)))
    pieces = token_pieces(tokenizer_from, ids)
    result = retokenize(alignment, pieces, tokenizer_to)
    assert tokenizer_to.decode(result.token_ids.tolist()) == " ".join(words)
    assert result.start_samples.tolist() == sorted(result.start_samples.tolist())
    assert result.end_samples.tolist() == sorted(result.end_samples.tolist())
    assert bool((result.start_samples <= result.end_samples).all())
    assert result.scores.sum().item() == pytest.approx(alignment.scores.sum().item())
    assert result.score == alignment.score
    before = [(w.word, w.start, w.end) for w in word_times(alignment, pieces)]
    after = [(w.word, w.start, w.end) for w in word_times(result, token_pieces(tokenizer_to, result.token_ids.tolist()))]
    assert [w for w, _, _ in before] == words
    assert before == after
    if source == target:
        assert rows(result) == rows(alignment)
        torch.testing.assert_close(result.scores, alignment.scores)


def test_words_to_characters_by_hand():
    words = TOKENIZERS["word"]
    alignment = alignment_of(words.encode("lazy dog"), [(100, 140), (200, 229)])
    result = retokenize(alignment, ["lazy", " dog"], TOKENIZERS["character"])
    #           l           a           z           y           the gap     d           o           g
    expected = [(100, 110), (110, 120), (120, 130), (130, 140), (140, 200), (200, 209), (209, 219), (219, 229)]
    assert rows(result) == expected
    assert result.scores.tolist() == pytest.approx([-0.25] * 4 + [0.0] + [-2 / 3] * 3)


def test_characters_with_their_own_space_to_words():
    characters = TOKENIZERS["character"]
    alignment = alignment_of(characters.encode("a do"), [(0, 10), (15, 18), (30, 40), (50, 60)])
    assert rows(retokenize(alignment, list("a do"), characters)) == [(0, 10), (15, 18), (30, 40), (50, 60)]
    assert [(w.word, w.start, w.end) for w in word_times(alignment, list("a do"))] == [
        ("a", 0.0, 10 / 8000),
        ("do", 30 / 8000, 60 / 8000),
    ]


def test_bytes_of_one_character_are_due_together():
    pieces = TOKENIZERS["sentencepiece"]
    alignment = alignment_of([0], [(80, 160)])
    result = retokenize(alignment, ["ß"], pieces)
    assert len(result.token_ids) >= 2
    assert set(rows(result)) == {(80, 160)}


def test_white_space_does_not_matter():
    characters = TOKENIZERS["character"]
    alignment = alignment_of([0, 0], [(0, 10), (20, 30)])
    assert rows(retokenize(alignment, ["  a ", "  b "], characters)) == [(0, 10), (10, 20), (20, 30)]


def test_no_tokens():
    empty = alignment_of([], [])
    assert retokenize(empty, [], TOKENIZERS["character"]).token_ids.numel() == 0


def test_other_text_is_an_error():
    characters = TOKENIZERS["character"]
    with pytest.raises(InputError, match="'dog' does not fit the text 'fox'"):
        spread(alignment_of([0], [(0, 10)]), ["dog"], characters, characters.encode("fox"))


class LowerCase:
    """A tokenizer that changes the text."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text.lower())

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        return self.inner.decode_step(token_id, state)


def test_a_vocabulary_that_changes_the_text_is_an_error():
    with pytest.raises(InputError, match="'Dog' does not fit the text 'dog'"):
        retokenize(alignment_of([0], [(0, 10)]), ["Dog"], LowerCase(TOKENIZERS["character"]))
