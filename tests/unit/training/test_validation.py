"""Validation streams the dev set."""

from pathlib import Path

import pytest

from reallm.data.cuts import write_cuts
from reallm.errors import InputError
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.validation import STREAMS, StreamingValidation
from tests.dummies.level_strings import make_cut
from tests.dummies.recognizer import LevelSystem


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    cuts = [make_cut(tmp_path, number) for number in range(STREAMS + 3)]
    cuts[0].supervisions[0].text = "seven"  # it says one word, and another one
    write_cuts(cuts, tmp_path / "dev.jsonl.gz")
    return tmp_path / "dev.jsonl.gz"


def test_word_errors_of_all_cuts_are_counted(manifest: Path, tmp_path: Path) -> None:
    system = LevelSystem(CharacterTokenizer.tiny(tmp_path)).eval()
    words = sum(1 + number % 5 for number in range(STREAMS + 3))
    assert StreamingValidation(manifest)(system) == {"wer": 100 / words, "errors": 1, "words": words}
    assert StreamingValidation(manifest, limit=1)(system) == {"wer": 100.0, "errors": 1, "words": 1}


def test_a_manifest_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manifest"):
        StreamingValidation(tmp_path / "dev.jsonl.gz")(LevelSystem(CharacterTokenizer.tiny(tmp_path)).eval())


def test_no_words_are_no_perfect_score(tmp_path: Path) -> None:
    cut = make_cut(tmp_path, 0)
    cut.supervisions[0].text = ""
    write_cuts([cut], tmp_path / "dev.jsonl.gz")
    with pytest.raises(InputError, match="holds no words to validate with"):
        StreamingValidation(tmp_path / "dev.jsonl.gz")(LevelSystem(CharacterTokenizer.tiny(tmp_path)).eval())
