"""A whole manifest: times, report, failures, kills."""

import json
from pathlib import Path
from typing import Any

import pytest
from lhotse.utils import fastcopy

import reallm.bundle
from reallm.aligners import corpus
from reallm.aligners.corpus import align_manifest, batches_by_duration, read_report, report_of
from reallm.aligners.ctc import CTCAligner
from reallm.aligners.ctm import CTMAligner
from reallm.aligners.report import error_ms
from reallm.data.alignments import token_alignment, token_meta, words
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.jobs import Workers
from reallm.registry import find
from reallm.tokenizers.character import CharacterTokenizer
from reallm.tokenizers.word import WordTokenizer
from tests.dummies.aligners import LevelTeacher, write_strings
from tests.dummies.command import run_and_read

TEXTS = ["the fox", "a lazy dog", "jumps", "over the fox", "a a a", "quick"]


@pytest.fixture
def teacher() -> LevelTeacher:
    return LevelTeacher(CharacterTokenizer.tiny())


def test_word_times_are_the_truth(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    out = tmp_path / "aligned.jsonl.gz"
    report = align_manifest(manifest, out, teacher, CTCAligner.tiny())
    assert report["utterances"] == 6 and report["failed"] == 0
    for side in ("begin", "end"):
        assert report[f"word_{side}_error_ms"]["words"] == 13
        assert report[f"word_{side}_error_ms"]["p90_abs_after_offset"] == 0
    before, after = list(read_cuts(manifest)), list(read_cuts(out))
    assert [c.id for c in before] == [c.id for c in after]
    for cut, text in zip(after, TEXTS, strict=True):
        alignment = token_alignment(cut, 8000)
        assert alignment.token_ids.tolist() == teacher.tokenizer.encode(text)
        assert "".join(item.symbol for item in cut.supervisions[0].alignment["token"]) == text
        assert words(cut)
        meta = token_meta(cut)
        assert meta["tokenizer"] == teacher.tokenizer.fingerprint
        assert (meta["aligner"], meta["backend"], meta["teacher"]) == ("ctc", "torch", corpus.teacher_id(teacher))
        assert alignment.score == pytest.approx(alignment.scores.sum().item(), abs=10)
    assert json.loads(report_of(out).read_text()) == report
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("aligner", ["ctm", "rnnt", "ctc"])
def test_a_cut_of_no_length_has_no_alignment(aligner: str, tmp_path: Path):
    system: Any = find("system", "ctc" if aligner == "ctc" else "transducer").tiny().eval()
    (tmp_path / "a.ctm").write_text("0000 1 0 0.1 the\n")
    engine = CTMAligner(tmp_path / "a.ctm") if aligner == "ctm" else find("aligner", aligner).tiny()
    cuts = [fastcopy(cut, duration=0.0) for cut in read_cuts(write_strings(tmp_path, system.tokenizer, ["the"]))]
    done, measured = corpus.align_cuts(cuts, system, engine, {})
    assert (done, measured.failures) == ([], [("0000", "no audio")])


def test_a_constant_offset_is_taken_off(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS, late=0.05)
    report = align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTCAligner.tiny())
    error = report["word_end_error_ms"]
    assert (error["median_abs"], error["offset"], error["median_abs_after_offset"]) == (50, -50, 0)
    given = align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTCAligner.tiny(), offsets={"begin": -20, "end": -40})
    assert given["word_end_error_ms"]["median_abs_after_offset"] == 10
    assert given["word_begin_error_ms"]["median_abs_after_offset"] == 30


def test_median_of_errors_by_hand():
    assert error_ms([]) is None
    assert error_ms([-0.010, 0.020, 0.040]) == {
        "words": 3,
        "median": 20,
        "median_abs": 20,
        "offset": 20,
        "median_abs_after_offset": 20,
        "p90_abs_after_offset": 28,
    }


def with_text(manifest: Path, number: int, text: str) -> Path:
    """The same strings with one transcript replaced."""
    cuts = list(read_cuts(manifest))
    cuts[number].supervisions[0].text = text
    write_cuts(cuts, manifest)
    return manifest


def test_too_many_failures_leave_a_report_and_no_manifest(tmp_path: Path, teacher: LevelTeacher):
    manifest = with_text(write_strings(tmp_path, teacher.tokenizer, TEXTS), 2, "the quick brown fox " * 10)
    out = tmp_path / "out" / "a.jsonl.gz"
    with pytest.raises(InputError, match=r"1 of 6 utterances .*too short: .* more than 1 %"):
        align_manifest(manifest, out, teacher, CTCAligner.tiny())
    assert [p.name for p in out.parent.iterdir()] == ["a.report.json"]
    assert json.loads(report_of(out).read_text())["failures"][0]["id"] == "0002"


def test_few_failures_are_left_out(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "MOST_FAILED", 0.2)
    manifest = with_text(write_strings(tmp_path, teacher.tokenizer, TEXTS), 2, "")
    report = align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTCAligner.tiny())
    assert report["reasons"] == {"empty transcript": 1}
    assert len(list(read_cuts(tmp_path / "a.jsonl.gz"))) == 5


def test_unknown_characters_stop_before_anything_is_written(tmp_path: Path, teacher: LevelTeacher):
    manifest = with_text(write_strings(tmp_path, teacher.tokenizer, TEXTS), 5, "ärger")
    out = tmp_path / "out" / "a.jsonl.gz"
    with pytest.raises(InputError, match=r"cut '0005': 'ä' \(U\+00E4"):
        align_manifest(manifest, out, teacher, CTCAligner.tiny())
    assert not out.parent.exists()


class Interrupted(CTCAligner):
    """Dies in the n-th batch, like a killed process."""

    def __init__(self, batches: int) -> None:
        super().__init__("torch")
        self.batches = batches
        self.component_spec = CTCAligner("torch").component_spec

    def align(self, *args):
        self.batches -= 1
        if self.batches < 0:
            raise KeyboardInterrupt
        return super().align(*args)


def test_goes_on_after_a_kill_and_does_nothing_twice(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "SHARD", 2)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    whole, out = tmp_path / "whole.jsonl.gz", tmp_path / "out.jsonl.gz"
    expected = align_manifest(manifest, whole, teacher, CTCAligner.tiny())
    with pytest.raises(KeyboardInterrupt):
        align_manifest(manifest, out, teacher, Interrupted(2))
    assert not out.exists()
    rest = Interrupted(1)
    assert align_manifest(manifest, out, teacher, rest) == expected
    assert rest.batches == 0
    assert out.read_bytes() == whole.read_bytes()
    assert align_manifest(manifest, out, teacher, Interrupted(0)) == expected
    assert not list(tmp_path.glob(".*"))


def test_two_processes_align_to_the_same_bytes(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "SHARD", 2)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    alone, shared = tmp_path / "alone.jsonl.gz", tmp_path / "shared.jsonl.gz"
    seen: list[tuple[int, int]] = []
    expected = align_manifest(manifest, alone, teacher, CTCAligner.tiny())
    found = align_manifest(
        manifest, shared, teacher, CTCAligner.tiny(), progress=lambda count, total: seen.append((count, total)), workers=Workers(2)
    )
    assert found == expected and seen[-1] == (6, 6)
    assert shared.read_bytes() == alone.read_bytes()
    assert report_of(shared).read_bytes() == report_of(alone).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_parts_of_another_teacher_are_not_used(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "SHARD", 2)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    out = tmp_path / "out.jsonl.gz"
    with pytest.raises(KeyboardInterrupt):
        align_manifest(manifest, out, teacher, Interrupted(2))
    other = Interrupted(3)
    align_manifest(manifest, out, LevelTeacher(teacher.tokenizer, sharpness=7.0), other)
    assert other.batches == 0


def test_words_of_a_ctm_file(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    lines = [f"{cut.id} 1 {w.start} {w.end - w.start} {w.word}" for cut in read_cuts(manifest) for w in words(cut)]
    (tmp_path / "w.ctm").write_text("\n".join(lines))
    report = align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTMAligner(tmp_path / "w.ctm"))
    assert report["backend"] == "ctm" and report["failed"] == 0
    assert report["word_end_error_ms"]["p90_abs_after_offset"] < 0.2


def test_batches_hold_like_durations():
    batches = list(batches_by_duration([1.0, 9.0, 1.5, 4.0, 2.0], 5.0))
    assert batches == [[1], [3], [4, 2], [0]]


@pytest.mark.parametrize("name", ["ctc", "transducer"])
def test_the_size_of_the_batches_changes_no_time(name: str, tmp_path: Path):
    system: Any = find("system", name).tiny().eval()
    cuts = list(read_cuts(write_strings(tmp_path, system.tokenizer, TEXTS)))
    aligner = corpus.fitting_aligner(system)("torch")
    (together, _), (apart, _) = (corpus.align_cuts(cuts, system, aligner, {}, batch_seconds=seconds) for seconds in (300.0, 0.1))
    assert len(together) == len(apart) > 3
    for one, other in zip(together, apart, strict=True):
        mine, theirs = token_alignment(one, 8000), token_alignment(other, 8000)
        assert (one.id, mine.start.tolist(), mine.end.tolist()) == (other.id, theirs.start.tolist(), theirs.end.tolist())
        assert mine.score == pytest.approx(theirs.score, rel=1e-4)


def test_command(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda path: teacher)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS, late=0.05)
    dev, train = tmp_path / "dev.jsonl.gz", tmp_path / "train.jsonl.gz"
    code, output = run_and_read("align", tmp_path, "--cuts", manifest, "--out", dev, "--backend", "torch")
    assert code == 0, output
    assert "6 utterances aligned by torch" in output
    assert "word ends against the truth (13 words): median absolute error 50 ms, 0 ms after taking off -50 ms" in output
    code, output = run_and_read(
        "align", tmp_path, "--cuts", manifest, "--out", train, "--backend", "torch", "--offset-from", tmp_path / "dev.report.json"
    )
    assert code == 0 and len(list(read_cuts(train))) == 6, output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aligner", "ctx"], "did you mean"),
        (["--aligner", "ctm"], "needs --ctm FILE"),
        (["--ctm", "x.ctm"], "is for --aligner ctm"),
        (["--backend", "torhc"], "did you mean 'torch'"),
        (["--device", "abacus"], "--device abacus is not here"),
        (["--tokenizer", "words.json"], "write TYPE=PATH"),
        (["--aligner", "ctm", "--ctm", "x.ctm", "--backend", "torch"], "--backend torch is not for the aligner 'ctm'"),
        (["--beam", "2"], "--beam 2 is not for the aligner 'ctc'"),
        (["--offset-from", "nothing.json"], "nothing.json is not the report"),
        (["--cuts", "nothing.jsonl.gz"], "no manifest nothing.jsonl.gz"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda path: teacher)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS[:1])
    code, output = run_and_read("align", tmp_path, "--cuts", manifest, "--out", tmp_path / "out" / "a.jsonl.gz", *options)
    assert code == 2
    (line,) = [line for line in output.splitlines() if "error" in line]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_system_without_scores_is_told(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS[:1])
    names = ("tokenizer", "sample_rate", "period_samples", "state_dict")
    other = type("SpeechReaLLM", (), {name: getattr(teacher, name) for name in names})()
    with pytest.raises(InputError, match="SpeechReaLLM has no CTC scores"):
        align_manifest(manifest, tmp_path / "a.jsonl.gz", other, CTCAligner.tiny())


def test_texts_that_the_other_tokenizer_does_not_know_stop_before_anything_is_written(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    target = WordTokenizer.train(TEXTS[:1], tmp_path / "words.json")
    with pytest.raises(InputError, match=r"cut '0001': .* not known to .*words\.json"):
        align_manifest(manifest, tmp_path / "out" / "a.jsonl.gz", teacher, CTCAligner.tiny(), tokenizer=target)
    assert not (tmp_path / "out").exists()


def test_reports_of_manifests_with_dots_in_their_names_are_apart(tmp_path: Path):
    assert report_of(tmp_path / "train.jsonl.gz") == tmp_path / "train.report.json"
    assert report_of(tmp_path / "train.clean.jsonl.gz") == tmp_path / "train.clean.report.json"


def test_times_are_carried_over_to_another_tokenizer(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda path: teacher)
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    WordTokenizer.train(TEXTS, tmp_path / "words.json")
    target = WordTokenizer(tmp_path / "words.json")
    code, shown = run_and_read(
        "align", tmp_path, "--cuts", manifest, "--out", tmp_path / "a.jsonl.gz", "--tokenizer", f"word={tmp_path / 'words.json'}"
    )
    assert code == 0, shown
    for cut, text in zip(read_cuts(tmp_path / "a.jsonl.gz"), TEXTS, strict=True):
        alignment = token_alignment(cut, 8000)
        assert alignment.token_ids.tolist() == target.encode(text)
        assert [w.end for w in words(cut)] == pytest.approx(alignment.end.tolist(), abs=1e-3)
        assert token_meta(cut)["tokenizer"] == target.fingerprint


class Shortening(WordTokenizer):
    """Gives another text back than it was given, as a normalizing vocabulary may."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text)[:2]


def test_a_text_that_the_other_tokenizer_changes_is_named_by_its_cut(tmp_path: Path, teacher: LevelTeacher):
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS)
    WordTokenizer.train(TEXTS, tmp_path / "words.json")
    with pytest.raises(InputError, match=r"cut '0003': alignment of 'over the fox' does not fit the text 'over the'"):
        align_manifest(manifest, tmp_path / "a.jsonl.gz", teacher, CTCAligner.tiny(), tokenizer=Shortening(tmp_path / "words.json"))
    assert not (tmp_path / "a.jsonl.gz").exists()


@pytest.mark.parametrize("name", ["ctc", "transducer"])
def test_the_aligner_fits_the_teacher(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    system = find("system", name).tiny()
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda path: system)
    manifest = write_strings(tmp_path, system.tokenizer, TEXTS[:2])
    out = tmp_path / "a.jsonl.gz"
    code, output = run_and_read("align", tmp_path, "--cuts", manifest, "--out", out, "--backend", "torch")
    assert code == 0, output
    assert read_report(report_of(out))["aligner"] == {"ctc": "ctc", "transducer": "rnnt"}[name]
    other = {"ctc": "rnnt", "transducer": "ctc"}[name]
    code, output = run_and_read("align", tmp_path, "--cuts", manifest, "--out", tmp_path / "b.jsonl.gz", "--aligner", other)
    assert code == 2 and f"name a trained `{'transducer' if name == 'ctc' else 'ctc'}` system" in output.replace("\n", " ")


def test_a_teacher_without_any_scores(tmp_path: Path, teacher: LevelTeacher, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reallm.bundle, "load_teacher", lambda path: find("system", "aed").tiny())
    manifest = write_strings(tmp_path, teacher.tokenizer, TEXTS[:1])
    code, output = run_and_read("align", tmp_path, "--cuts", manifest, "--out", tmp_path / "a.jsonl.gz")
    assert code == 2 and "AED has no scores to align with" in output
