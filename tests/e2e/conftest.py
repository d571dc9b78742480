"""What end-to-end tests share."""

from pathlib import Path

import pytest

from tests.dummies.command import run
from tests.dummies.data import write_corpus


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manifests of a tiny digits corpus, and its tokenizers word.json and character.json."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), train_strings=100, epochs=1, dev_strings=2, test_strings=3)
    for kind in ("word", "character"):
        assert run("tokenizer", kind, "--train", folder / "train.jsonl.gz", "--out", folder / f"{kind}.json") == 0
    return folder
