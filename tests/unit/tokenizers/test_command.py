"""``reallm tokenizer``."""

from pathlib import Path

import pytest
from lhotse import MonoCut, SupervisionSegment

from reallm.data.cuts import write_cuts
from reallm.registry import find
from tests.dummies.command import run_and_read


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    texts = ["one two", "two six", "six one"] * 3
    cuts = [MonoCut(f"c{i}", 0, 1, 0, [SupervisionSegment(f"s{i}", "r", 0, 1, text=text)]) for i, text in enumerate(texts)]
    path = tmp_path / "cuts.jsonl.gz"
    write_cuts(cuts, path)
    return path


@pytest.mark.parametrize(("name", "options", "size"), [("character", [], 9), ("word", [], 3), ("sentencepiece", ["--vocab-size", 11], 11)])
def test_makes_the_file_once(name: str, options: list[object], size: int, manifest: Path):
    out = manifest.parent / "new" / "vocabulary"
    code, output = run_and_read("tokenizer", name, "--train", manifest, "--out", out, *options)
    assert code == 0, output
    assert f"{size} tokens from 9 transcripts" in output
    tokenizer = find("tokenizer", name)(out)
    assert tokenizer.decode(tokenizer.encode("two one six")) == "two one six"
    time = out.stat().st_mtime_ns
    code, output = run_and_read("tokenizer", name, "--train", manifest, "--out", out, *options)
    assert code == 0 and "(unchanged)" in output
    assert out.stat().st_mtime_ns == time
    assert [p.name for p in out.parent.iterdir()] == ["vocabulary"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["charakter"], "did you mean 'character'"),
        (["word", "--vocab-size", "5"], "--vocab-size 5: the vocabulary of 'word' follows from the transcripts"),
        (["sentencepiece", "--vocab-size", "500"], "give at most"),
        (["character", "--train", "nothing.jsonl.gz"], "no manifest nothing.jsonl.gz"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, manifest: Path):
    out = manifest.parent / "vocabulary"
    code, output = run_and_read("tokenizer", arguments[0], "--train", manifest, "--out", out, *arguments[1:])
    assert code == 2
    (line,) = output.strip().splitlines()
    assert message in line
    assert [p.name for p in manifest.parent.iterdir()] == [manifest.name]


def test_takes_several_manifests(manifest: Path):
    other = manifest.parent / "other.jsonl.gz"
    write_cuts([MonoCut("d", 0, 1, 0, [SupervisionSegment("t", "r", 0, 1, text="nine")])], other)
    code, output = run_and_read("tokenizer", "word", "--train", manifest, "--train", other, "--out", manifest.parent / "words.json")
    assert code == 0 and "4 tokens from 10 transcripts" in output, output
