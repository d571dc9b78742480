"""Alignments made elsewhere: CTM, TextGrids, the public LibriSpeech alignments; what they do not cover is listed."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from praatio.data_classes.textgrid import Textgrid
from praatio.textgrid import IntervalTier

from reallm.aligners import corpus
from reallm.aligners.elsewhere import ElsewhereAligner, read_textgrid
from reallm.data.alignments import token_alignment, token_meta
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.protocols import AlignmentFailure
from reallm.tokenizers.character import CharacterTokenizer
from reallm.types import Batch
from tests.dummies.command import run_data

RATE = 16000
SAID = "OLD DON'T GO"
TIMES = [(0.25, 0.5, "OLD"), (0.5, 1.0, "DON'T"), (1.25, 1.5, "GO")]


def write_textgrid(path: Path, words: list[tuple[float, float, str]], tier: str = "words", form: str = "long_textgrid") -> None:
    """As the Montreal Forced Aligner does: words in lower case, phones in another tier."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = Textgrid()
    grid.addTier(IntervalTier(tier, [(a, b, word.lower()) for a, b, word in words], 0, 2))
    grid.addTier(IntervalTier("phones", [(a, b, "AH0") for a, b, _ in words], 0, 2))
    grid.save(str(path), format=form, includeBlankSpaces=True)


def write_ctm(path: Path, utterance: str) -> None:
    path.write_text("".join(f"{utterance} 1 {a} {b - a} {word}\n" for a, b, word in TIMES))


def write_public(path: Path, utterance: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""{utterance} ",OLD,DON'T,,GO," "0.25,0.5,1.0,1.25,1.5,2.0"\n""")


@pytest.fixture
def tokenizer(tmp_path: Path) -> CharacterTokenizer:
    return CharacterTokenizer.train([SAID], tmp_path / "characters.json")


def align(folder: Path, tokenizer: CharacterTokenizer, *utterances: str, text: str = SAID) -> list[object]:
    system = SimpleNamespace(tokenizer=tokenizer, sample_rate=RATE)
    count = len(utterances)
    batch = Batch(list(utterances), torch.zeros(count, 0), torch.full((count,), 2 * RATE), [text] * count)
    return list(ElsewhereAligner(folder).align(batch, [torch.tensor(tokenizer.encode(text))] * count, system))


def test_all_kinds_give_the_same(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    write_ctm(tmp_path / "all.ctm", "9-1-0000")
    write_textgrid(tmp_path / "9/9-2-0000.TextGrid", TIMES)
    write_textgrid(tmp_path / "9/9-2-0001.TextGrid", TIMES, "reader - words", "short_textgrid")
    write_public(tmp_path / "9/3/9-3.alignment.txt", "9-3-0000")
    found = align(tmp_path, tokenizer, "9-1-0000", "9-2-0000", "9-2-0001", "9-3-0000")
    letters = tokenizer.encode(SAID)
    for alignment in found:
        assert alignment.token_ids.tolist() == letters
        ends = [end for token, end in zip(SAID, alignment.end_samples.tolist(), strict=True) if token != " "]
        assert ends == [5333, 6666, 8000, 9600, 11200, 12800, 14400, 16000, 22000, 24000]
    assert ElsewhereAligner(tmp_path).backend_version()[0] == "ctm+textgrid+librispeech"


def test_alignments_of_other_content_have_another_version(tmp_path: Path) -> None:
    write_textgrid(tmp_path / "u.TextGrid", TIMES)
    size, before = (tmp_path / "u.TextGrid").stat().st_size, ElsewhereAligner(tmp_path).backend_version()
    assert ElsewhereAligner(tmp_path).backend_version() == before
    write_textgrid(tmp_path / "u.TextGrid", [(0.35, *TIMES[0][1:]), *TIMES[1:]])
    assert (tmp_path / "u.TextGrid").stat().st_size == size and ElsewhereAligner(tmp_path).backend_version() != before


def test_a_word_that_the_dictionary_did_not_have(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    write_textgrid(tmp_path / "u.TextGrid", [(a, b, "<unk>" if word == "DON'T" else word) for a, b, word in TIMES])
    (alignment,) = align(tmp_path, tokenizer, "u")
    assert alignment.end_samples.tolist()[-1] == 24000


def test_what_fails_says_why(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    write_textgrid(tmp_path / "u.TextGrid", TIMES[:2])
    write_textgrid(tmp_path / "silent.TextGrid", [(0.5, 1.0, "sil")])
    write_public(tmp_path / "9-3.alignment.txt", "9-3-0000")
    found = align(tmp_path, tokenizer, "u", "silent", "9-3-0001", "other")
    assert all(isinstance(failure, AlignmentFailure) for failure in found)
    reasons = [failure.reason for failure in found]
    assert "does not fit the text" in reasons[0]
    assert reasons[1:] == [f"without words in {tmp_path}", f"not in {tmp_path}", f"not in {tmp_path}"]


def test_folders_and_files_that_are_no_alignments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no alignments"):
        ElsewhereAligner(tmp_path)
    write_textgrid(tmp_path / "a/u.TextGrid", TIMES)
    write_textgrid(tmp_path / "b/u.TextGrid", TIMES)
    with pytest.raises(InputError, match=r"b/u.TextGrid: 'u' is in another file"):
        ElsewhereAligner(tmp_path)
    write_textgrid(tmp_path / "other.TextGrid", TIMES, tier="sentences")
    with pytest.raises(InputError, match="has the tiers sentences, phones: one called 'words' is needed"):
        read_textgrid(tmp_path / "other.TextGrid")
    (tmp_path / "broken.TextGrid").write_text('File type = "ooTextFile"\nObject class')
    with pytest.raises(InputError, match=r"broken.TextGrid is no TextGrid"):
        read_textgrid(tmp_path / "broken.TextGrid")
    (tmp_path / "only").mkdir()
    (tmp_path / "only/9-3.alignment.txt").write_text("9-3-0000 HELLO\n")
    with pytest.raises(InputError, match=r"9-3.alignment.txt is not a file of the LibriSpeech alignments"):
        ElsewhereAligner(tmp_path / "only").words_of("9-3-0000")


def write_corpus(folder: Path, utterances: int) -> Path:
    """A manifest of silent utterances ``9-1-NNNN``."""
    folder.mkdir()
    lines = ["id\tpath\ttext"]
    for number in range(utterances):
        soundfile.write(folder / f"9-1-{number:04d}.flac", torch.zeros(2 * RATE).numpy(), RATE)
        lines.append(f"9-1-{number:04d}\t9-1-{number:04d}.flac\t{SAID}")
    (folder / "train.tsv").write_text("\n".join(lines))
    run_data("tsv", folder / "train.tsv", "--out", folder)
    return folder / "train.jsonl.gz"


@pytest.mark.parametrize("missing", [1, 2])
def test_a_corpus_that_they_do_not_cover(tokenizer: CharacterTokenizer, tmp_path: Path, missing: int) -> None:
    manifest, out = write_corpus(tmp_path / "data", 101), tmp_path / "out.jsonl.gz"
    (tmp_path / "alignments").mkdir()
    for number in range(missing, 101):
        write_ctm(tmp_path / f"alignments/{number}.ctm", f"9-1-{number:04d}")
    command = ["alignments", "--cuts", manifest, "--alignments", tmp_path / "alignments", "--out", out]
    command += ["--tokenizer", f"character={tmp_path / 'characters.json'}"]
    if missing == 2:
        with pytest.raises(InputError, match=r"2 of 101 utterances .* more than 1 %: they are listed in .*out.report.json"):
            run_data(*command)
        assert not out.exists()
    else:
        assert f"left out: 9-1-0000 (not in {tmp_path / 'alignments'})" in run_data(*command)
        cuts = list(read_cuts(out))
        alignment, meta = token_alignment(cuts[0], RATE), token_meta(cuts[0])
        assert len(cuts) == 100 and alignment is not None and alignment.end_samples.tolist()[-1] == 24000
        assert meta is not None and meta["tokenizer"] == tokenizer.fingerprint and (meta["backend"], meta["teacher"]) == ("ctm", "")
    failures = json.loads((tmp_path / "out.report.json").read_text())["failures"]
    assert [failure["id"] for failure in failures] == [f"9-1-{number:04d}" for number in range(missing)]


def test_processes_share_them(tokenizer: CharacterTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_corpus(tmp_path / "data", 12)
    (tmp_path / "alignments").mkdir()
    for number in range(12):
        write_ctm(tmp_path / f"alignments/{number}.ctm", f"9-1-{number:04d}")
    monkeypatch.setattr(corpus, "SHARD", 5)
    shared, in_shards = list[int](), corpus.in_shards

    def noted(work: Any, items: Any, size: int, folder: Path, key: Any, workers: Any, *rest: Any) -> Any:
        shared.append(workers.jobs)
        return in_shards(work, items, size, folder, key, workers, *rest)

    monkeypatch.setattr(corpus, "in_shards", noted)
    for jobs in (1, 2):
        command = ["alignments", "--cuts", manifest, "--alignments", tmp_path / "alignments", "--out", tmp_path / f"{jobs}.jsonl.gz"]
        run_data(*command, "--tokenizer", f"character={tmp_path / 'characters.json'}", "--jobs", jobs)
    assert (tmp_path / "1.jsonl.gz").read_bytes() == (tmp_path / "2.jsonl.gz").read_bytes()
    assert len(list(read_cuts(tmp_path / "2.jsonl.gz"))) == 12 and shared == [1, 2]
    with pytest.raises(InputError, match="--jobs 2 and --dask tcp://here:1: choose one"):
        run_data(*command, "--tokenizer", f"character={tmp_path / 'characters.json'}", "--jobs", 2, "--dask", "tcp://here:1")


def test_an_empty_manifest_is_one_line(tokenizer: CharacterTokenizer, tmp_path: Path) -> None:
    write_ctm(tmp_path / "all.ctm", "u")
    write_cuts([], tmp_path / "none.jsonl.gz")
    with pytest.raises(InputError, match=r"none\.jsonl\.gz holds no cuts"):
        run_data(
            *("alignments", "--cuts", tmp_path / "none.jsonl.gz", "--alignments", tmp_path, "--out", tmp_path / "a.jsonl.gz"),
            *("--tokenizer", f"character={tmp_path / 'characters.json'}"),
        )
