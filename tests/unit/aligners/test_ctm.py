"""Alignments from CTM files."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reallm.aligners.ctm import CTMAligner, read_ctm
from reallm.errors import InputError
from reallm.protocols import Aligner, AlignmentFailure
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.word import WordTokenizer
from reallm.types import Batch

SYSTEM = SimpleNamespace(tokenizer=WordTokenizer.tiny(), sample_rate=8000)


def batch_of(*utterances: str, samples: int = 8000) -> Batch:
    return Batch(list(utterances), torch.zeros(len(utterances), samples), torch.full((len(utterances),), samples), [""] * len(utterances))


def test_tiny_on_words():
    aligner = CTMAligner.tiny()
    assert isinstance(aligner, Aligner)
    (alignment,) = aligner.align(batch_of("utt"), [torch.tensor(SYSTEM.tokenizer.encode("the lazy dog"))], SYSTEM)
    assert alignment.start_samples.tolist() == [800, 3600, 6400]
    assert alignment.end_samples.tolist() == [3200, 5600, 7600]
    assert alignment.scores.tolist() == pytest.approx([math.log(0.9), 0, 0])


def test_spread_on_characters_within_the_audio():
    characters = CharacterTokenizer.tiny()
    system = SimpleNamespace(tokenizer=characters, sample_rate=8000)
    (alignment,) = CTMAligner.tiny().align(batch_of("utt", samples=7000), [torch.tensor(characters.encode("the lazy dog"))], system)
    assert alignment.start_samples.tolist()[:5] == [800, 1600, 2400, 3200, 3600]
    assert alignment.end_samples.tolist()[-3:] == [6600, 6800, 7000]


def test_failures_say_why():
    words = SYSTEM.tokenizer
    tokens = [torch.tensor(words.encode(t), dtype=torch.int64) for t in ("the lazy fox", "the", "")]
    first, second, third = CTMAligner.tiny().align(batch_of("utt", "stranger", "utt"), tokens, SYSTEM)
    assert first == AlignmentFailure("alignment of 'the lazy dog' does not fit the text 'the lazy fox': align the same transcript")
    assert second == AlignmentFailure("not in tiny.ctm")
    assert third == AlignmentFailure("empty transcript")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("utt 1 0.1 word\n", r":1: 'utt 1 0\.1 word' is not"),
        ("utt 1 0.1 -0.2 word\n", ":1: "),
        ("utt 1 nan 0.2 word\n", ":1: "),
        ("utt 1 0.1 0.2 word\nutt 2 0.3 0.2 word\n", ":2: utterance 'utt' has the channels 1 and 2"),
        (";; nothing\n", "holds no words"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str):
    path = tmp_path / "words.ctm"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        CTMAligner(path)


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        CTMAligner(tmp_path / "none.ctm")


def test_lines_in_any_order(tmp_path: Path):
    (tmp_path / "w.ctm").write_text("u A 0.5 0.1 two\n;; note\n\nu A 0.1 0.1 one 0.5\n")
    assert [word for _, _, word, _ in read_ctm(tmp_path / "w.ctm")["u"]] == ["one", "two"]
