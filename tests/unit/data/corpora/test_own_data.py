"""Users' own data: Kaldi folders, tables and lhotse manifests make the same manifests."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.utils import fastcopy

from reallm.data.alignments import words
from reallm.data.corpora.tsv import read_tsv
from reallm.data.cuts import load_audio, read_cuts, text_of, write_cuts
from reallm.errors import InputError
from reallm.types import Word
from tests.dummies.command import run_data
from tests.dummies.data import write_corpus, write_recordings
from tests.dummies.own_data import RATE, table, write_audio


def test_tsv(tmp_path: Path) -> None:
    write_audio(tmp_path / "corpus" / "audio", ["a", "b"], suffix=".flac")
    path = table(
        tmp_path / "corpus" / "train.tsv",
        [("path", "text", "speaker"), ("audio/a.flac", "One TWO", "ada"), ("audio/b.flac", "Three", "bo")],
    )
    output = run_data("tsv", path, "--out", tmp_path / "out", "--lower")
    cuts = list(read_cuts(tmp_path / "out" / "train.jsonl.gz"))
    assert [(c.id, text_of(c), c.supervisions[0].speaker) for c in cuts] == [("audio-a", "one two", "ada"), ("audio-b", "three", "bo")]
    assert load_audio(cuts[0], 8000).shape == (8000,)
    record = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert record["corpus"] == "corpus" and record["real"] is True
    assert record["splits"]["train"] | {"source": ""} == {"strings": 2, "hours": 0.001, "speakers": 2, "source": "", "skipped": {}}
    assert "train" in output and "real speech" in output


def test_tsv_segments(tmp_path: Path) -> None:
    write_audio(tmp_path, ["long"], seconds=3)
    rows = [("utt_id", "path", "text", "start", "end"), ("x", "long.wav", "one", 0.5, 1.25), ("y", "long.wav", "two", "", "")]
    run_data("tsv", table(tmp_path / "t.tsv", rows), "--out", tmp_path / "out", "--name", "dev", "--upper")
    x, y = read_cuts(tmp_path / "out" / "dev.jsonl.gz")
    assert (x.id, text_of(x), y.id, y.duration) == ("x", "ONE", "y", 3.0)
    np.testing.assert_array_equal(load_audio(x), load_audio(y)[8000:20000])


def test_ids_that_a_table_does_not_give(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_audio(tmp_path / "t" / folder, ["1"], seconds=2)
    rows: dict[str, tuple[object, ...]] = {
        "a-1": ("a/1.wav", "", ""),
        "b-1": ("b/1.wav", "", ""),
        "a-1-0001": ("a/1.wav", 0, 1),
        "b-1-0001": ("./b/1.wav", "", 0.5),
        "a-1-0002": ("a/1.wav", 1, ""),
        "t-a-1": ("../t/a/1.wav", "", ""),
        "-".join((tmp_path / "t/a/1").parts[1:]): (tmp_path / "t/a/1.wav", "", ""),
    }
    header = ("path", "start", "end", "text")
    run_data("tsv", table(tmp_path / "t/t.tsv", [header, *((*row, "x") for row in rows.values())]), "--out", tmp_path / "out")
    assert [cut.id for cut in read_cuts(tmp_path / "out/t.jsonl.gz")] == list(rows)
    given = [("utt_id", *header), ("own", "a/1.wav", 0, 1, "x"), ("", "a/1.wav", 1, 2, "x")]
    assert [utterance.id for utterance in read_tsv(table(tmp_path / "t/given.tsv", given))] == ["own", "a-1-0001"]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("file", "text")], r"no column 'path'"),
        ([("path,text",), ("a.wav,one",)], r"t\.tsv: its first line 'path,text' has commas: separate the columns with tabs, not commas$"),
        ([("path", "texts")], r"no column 'text' \(did you mean 'texts'\?\)"),
        ([("path", "text"), ("a.wav",)], "line 2 has 1 columns, its header 2"),
        ([("path", "text", "start"), ("a.wav", "one", "soon")], "line 2: start and end must be seconds"),
        ([("path", "text"), ("a.wav", "one"), ("a.wav", "two")], "used twice, 'a'"),
        ([("path", "text")], "holds no utterances"),
        ([("path", "text"), ("none.wav", "one")], r"1 of 1 audio files .* are broken: none .no such file."),
        ([("path", "text", "start", "end"), ("a.wav", "one", "0.5", "9")], "is not inside the recording"),
    ],
)
def test_bad_tables(tmp_path: Path, rows: list[tuple[object, ...]], message: str) -> None:
    write_audio(tmp_path, ["a"])
    with pytest.raises(InputError, match=message):
        run_data("tsv", table(tmp_path / "t.tsv", rows), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is missing"):
        run_data("tsv", tmp_path / "none.tsv", "--out", tmp_path / "out")


def test_one_broken_file_among_many(tmp_path: Path) -> None:
    names = [f"u{i:03d}" for i in range(100)]
    write_audio(tmp_path, names, seconds=0.05)
    (tmp_path / "u007.wav").write_bytes((tmp_path / "u007.wav").read_bytes()[:200])
    path = table(tmp_path / "t.tsv", [("path", "text"), *((f"{n}.wav", "one") for n in names)])
    output = run_data("tsv", path, "--out", tmp_path / "out")
    assert len(read_cuts(tmp_path / "out" / "t.jsonl.gz")) == 99
    assert "1 skipped" in output and "u007: truncated" in output
    (tmp_path / "u008.wav").write_text("no audio")
    with pytest.raises(InputError, match="2 of 100 audio files"):
        run_data("tsv", path, "--out", tmp_path / "out2")


def test_real_and_synthetic_do_not_mix(tmp_path: Path) -> None:
    write_audio(tmp_path, ["a"])
    path = table(tmp_path / "t.tsv", [("path", "text"), ("a.wav", "one")])
    run_data("tsv", path, "--out", tmp_path / "out", "--synthetic", "--corpus", "mine")
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["real"] is False
    run_data("tsv", path, "--out", tmp_path / "out", "--synthetic", "--name", "dev")
    assert sorted(json.loads((tmp_path / "out" / "corpus.json").read_text())["splits"]) == ["dev", "t"]
    with pytest.raises(InputError, match="already holds the corpus 'mine'"):
        run_data("tsv", path, "--out", tmp_path / "out", "--name", "test")
    with pytest.raises(InputError, match="--lower and --upper"):
        run_data("tsv", path, "--out", tmp_path / "out", "--lower", "--upper")


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(content)
    return folder


def test_kaldi(tmp_path: Path) -> None:
    write_audio(tmp_path / "train", ["a", "b"])
    folder = kaldi(tmp_path / "train", wav_scp="r1 a.wav\nr2 b.wav\n", text="r1 one two\nr2 three\n", utt2spk="r1 ada\nr2 bo\n")
    run_data("kaldi", folder, "--out", tmp_path / "out")
    cuts = list(read_cuts(tmp_path / "out" / "train.jsonl.gz"))
    assert [(c.id, text_of(c), c.supervisions[0].speaker) for c in cuts] == [("r1", "one two", "ada"), ("r2", "three", "bo")]


def test_kaldi_tables_may_have_tabs(tmp_path: Path) -> None:
    write_audio(tmp_path / "train", ["a"])
    kaldi(tmp_path / "train", wav_scp="r1\ta.wav\n", text="r1\tone\u2028 two\n", utt2spk="r1\tada\n")
    run_data("kaldi", tmp_path / "train", "--out", tmp_path / "out")
    [cut] = read_cuts(tmp_path / "out" / "train.jsonl.gz")
    assert (text_of(cut), cut.supervisions[0].speaker) == ("one\u2028 two", "ada")


def test_tables_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "train", wav_scp="r1 a.wav\n", text="")
    (folder / "text").write_bytes("r1 für\n".encode("latin-1"))
    with pytest.raises(InputError, match="text is not UTF-8 text"):
        run_data("kaldi", folder, "--out", tmp_path / "out")
    (tmp_path / "t.tsv").write_bytes("path\ttext\na.wav\tfür\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.tsv is not UTF-8 text"):
        run_data("tsv", tmp_path / "t.tsv", "--out", tmp_path / "out")


def test_kaldi_segments(tmp_path: Path) -> None:
    write_audio(tmp_path / "train", ["a"], seconds=2)
    folder = kaldi(tmp_path / "train", wav_scp="r1 a.wav\n", text="u1 one\nu2 two\n", segments="u1 r1 0.0 0.5\nu2 r1 0.5 2.0\n")
    run_data("kaldi", folder, "--out", tmp_path / "out")
    assert [(c.id, c.start, c.duration) for c in read_cuts(tmp_path / "out" / "train.jsonl.gz")] == [("u1", 0, 0.5), ("u2", 0.5, 1.5)]


def test_a_kaldi_segment_may_last_to_the_end_of_its_recording(tmp_path: Path) -> None:
    write_audio(tmp_path / "train", ["a"], seconds=2)
    folder = kaldi(tmp_path / "train", wav_scp="r1 a.wav\n", text="u1 one\nu2 two\n", segments="u1 r1 0 -1\nu2 r1 0.5 -1.0\n")
    run_data("kaldi", folder, "--out", tmp_path / "out")
    assert [(c.id, c.start, c.duration) for c in read_cuts(tmp_path / "out" / "train.jsonl.gz")] == [("u1", 0, 2.0), ("u2", 0.5, 1.5)]


@pytest.mark.parametrize(
    "files", [{"wav_scp": "r a.wav\n", "segments": "u1 r 0 0.5\nu2 r 0.5 1\nu3 r 0 1\n"}, {"wav_scp": "u1 a.wav\nu2 a.wav\nu3 a.wav\n"}]
)
def test_kaldi_utterances_without_a_text_are_left_out_and_counted(tmp_path: Path, files: dict[str, str]) -> None:
    write_audio(tmp_path / "train", ["a"])
    output = run_data("kaldi", kaldi(tmp_path / "train", text="u1 one\n", **files), "--out", tmp_path / "out")
    assert f"2 of 3 utterances of {tmp_path / 'train'} are not in text and left out, such as 'u2'" in output
    assert [c.id for c in read_cuts(tmp_path / "out" / "train.jsonl.gz")] == ["u1"]


@pytest.mark.parametrize(
    "files, message",
    [
        ({"text": "a one\n"}, "has no wav.scp"),
        ({"wav_scp": "a a.wav\n"}, "has no text"),
        ({"wav_scp": "a sox a.wav |\n", "text": "a one\n"}, "'a' is a command"),
        ({"wav_scp": "a,a.wav\n", "text": "a one\n"}, r"wav\.scp line 1: 'a,a\.wav' has commas: .* tabs, not commas$"),
        ({"wav_scp": "a a.wav\n", "text": "a,one\n"}, r"text line 1: 'a,one' has commas: .* tabs, not commas$"),
        ({"wav_scp": "a a.wav\n", "text": "b one\n"}, "recording 'b' of utterance 'b' is not in wav.scp"),
        ({"wav_scp": "a a.wav\n", "text": "a one\na two\n"}, "line 2: 'a' is there twice"),
        ({"wav_scp": "a a.wav\n", "text": "u one\n", "segments": "v a 0 1\n"}, "'u' is in text but not in segments"),
        ({"wav_scp": "a a.wav\n", "text": "u one\n", "segments": "u a 0\n"}, "is not 'utterance recording start end'"),
        ({"wav_scp": "a a.wav\n", "text": "a\n"}, r"1 of 1 .*no transcript"),
    ],
)
def test_bad_kaldi_folders(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write_audio(tmp_path / "train", ["a"])
    with pytest.raises(InputError, match=message):
        run_data("kaldi", kaldi(tmp_path / "train", **files), "--out", tmp_path / "out")
    with pytest.raises(InputError, match="is missing"):
        run_data("kaldi", tmp_path / "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def lhotse_sets(folder: Path) -> tuple[RecordingSet, SupervisionSet]:
    write_audio(folder / "audio", ["a", "b"], seconds=2)
    recordings = RecordingSet.from_recordings(Recording.from_file(folder / "audio" / f"{n}.wav") for n in "ab")
    spans = [("a", 0.0, 0.5), ("a", 0.5, 1.0), ("b", 0.0, 2.0)]
    supervisions = SupervisionSet.from_segments(
        SupervisionSegment(f"u{i}", r, start, duration, text=f"Text {i}", speaker=r) for i, (r, start, duration) in enumerate(spans)
    )
    return recordings, supervisions


def test_lhotse_recordings_and_supervisions(tmp_path: Path) -> None:
    recordings, supervisions = lhotse_sets(tmp_path)
    for segment in supervisions:
        segment.alignment = {"word": [words_item(segment.start)]}
    (tmp_path / "m").mkdir()
    recordings.to_file(tmp_path / "m" / "corpus_recordings_dev-clean.jsonl.gz")
    supervisions.to_file(tmp_path / "m" / "corpus_supervisions_dev-clean.jsonl.gz")
    run_data("lhotse", tmp_path / "m", "--out", tmp_path / "out", "--lower")
    cuts = list(read_cuts(tmp_path / "out" / "corpus_dev-clean.jsonl.gz"))
    assert sorted((c.supervisions[0].id, text_of(c), c.start, c.duration) for c in cuts) == [
        ("u0", "text 0", 0, 0.5),
        ("u1", "text 1", 0.5, 1.0),
        ("u2", "text 2", 0, 2.0),
    ]
    assert all(words(c) == [Word("Text", pytest.approx(0.0), pytest.approx(0.25))] for c in cuts)


def words_item(start: float) -> object:
    from lhotse.supervision import AlignmentItem

    return AlignmentItem("Text", start, 0.25)


def test_lhotse_cuts(tmp_path: Path) -> None:
    recordings, supervisions = lhotse_sets(tmp_path)
    (tmp_path / "m").mkdir()
    CutSet.from_manifests(recordings, supervisions).trim_to_supervisions().to_eager().to_file(tmp_path / "m" / "cuts_train.jsonl.gz")
    run_data("lhotse", tmp_path / "m", "--out", tmp_path / "out", "--corpus", "mine")
    assert len(read_cuts(tmp_path / "out" / "train.jsonl.gz")) == 3


@pytest.mark.parametrize("real", [True, False])
def test_lhotse_takes_what_the_toolkit_wrote(real: bool, tmp_path: Path) -> None:
    made = write_corpus(tmp_path)
    known = json.loads((made / "corpus.json").read_text())
    (made / "corpus.json").write_text(json.dumps({**known, "real": real}))
    (made / "notes.jsonl").write_text("these are no cuts\n")
    run_data("lhotse", made, "--out", tmp_path / "out")
    for name in ("train", "dev", "test", "test_noisy"):
        assert (tmp_path / "out" / f"{name}.jsonl.gz").read_bytes() == (made / f"{name}.jsonl.gz").read_bytes()
    record = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert {key: record[key] for key in ("corpus", "real", "licence")} == {"corpus": "fsdd", "real": real, "licence": known["licence"]}
    assert sorted(record["splits"]) == ["dev", "test", "test_noisy", "train"]


def test_lhotse_manifests_that_were_cut_short_are_named(tmp_path: Path) -> None:
    made = write_corpus(tmp_path)
    manifest, whole = made / "dev.jsonl.gz", (made / "dev.jsonl.gz").read_bytes()
    for size in (25, len(whole) - 20):
        manifest.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{manifest} is (broken after 0 cuts|not a lhotse manifest)"):
            run_data("lhotse", made, "--out", tmp_path / "out")
    manifest.write_bytes(whole)
    plain = made / "more.jsonl"
    plain.write_bytes(gzip.decompress(whole)[:100])
    with pytest.raises(InputError, match=rf"^{plain} is not a lhotse manifest .its first line is cut short.: make it again"):
        run_data("lhotse", made, "--out", tmp_path / "out")
    plain.unlink()
    for content in ('{"corpus": "fs', "[]"):
        (made / "corpus.json").write_text(content)
        with pytest.raises(InputError, match=rf"^{made}/corpus.json is broken .*: remove it, or make the manifests beside it again"):
            run_data("lhotse", made, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_corpus_json_of_out_is_named(tmp_path: Path) -> None:
    write_audio(tmp_path, ["a"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/corpus.json").write_text("")
    with pytest.raises(InputError, match=rf"^{tmp_path}/out/corpus.json is broken"):
        run_data("tsv", table(tmp_path / "t.tsv", [("path", "text"), ("a.wav", "one")]), "--out", tmp_path / "out")


def test_lhotse_manifests_of_one_name(tmp_path: Path) -> None:
    recordings, supervisions = lhotse_sets(tmp_path)
    cuts = list(CutSet.from_manifests(recordings, supervisions).trim_to_supervisions())
    for name in ("train", "cuts_train"):
        write_cuts(cuts, tmp_path / "m" / f"{name}.jsonl.gz")
    with pytest.raises(InputError, match=r"m/train\.jsonl\.gz is the second manifest of 'train'"):
        run_data("lhotse", tmp_path / "m", "--out", tmp_path / "out")


def test_lhotse_cuts_of_no_length_are_skipped(tmp_path: Path) -> None:
    recordings, supervisions = lhotse_sets(tmp_path)
    cuts = list(CutSet.from_manifests(recordings, supervisions).trim_to_supervisions())
    many = [cuts[2].with_id(f"u{n:03d}") for n in range(99)] + [fastcopy(cuts[2], id="short", duration=0.0)]
    write_cuts(many, tmp_path / "m" / "cuts_train.jsonl.gz")
    assert "short: no audio" in run_data("lhotse", tmp_path / "m", "--out", tmp_path / "out")
    assert len(read_cuts(tmp_path / "out" / "train.jsonl.gz")) == 99


def test_bad_lhotse_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="is missing"):
        run_data("lhotse", tmp_path / "none", "--out", out)
    (tmp_path / "m").mkdir()
    with pytest.raises(InputError, match="holds no manifests"):
        run_data("lhotse", tmp_path / "m", "--out", out)
    recordings, supervisions = lhotse_sets(tmp_path)
    recordings.to_file(tmp_path / "m" / "recordings.jsonl")
    with pytest.raises(InputError, match=r"no supervisions\.jsonl beside it"):
        run_data("lhotse", tmp_path / "m", "--out", out)
    supervisions.to_file(tmp_path / "m" / "supervisions.jsonl")
    (tmp_path / "audio" / "a.wav").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 3 audio files"):
        run_data("lhotse", tmp_path / "m", "--out", out)
    (tmp_path / "m" / "cuts_bad.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match="is not a lhotse manifest"):
        run_data("lhotse", tmp_path / "m", "--out", out)
    assert not out.exists()


def test_digits_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recordings(tmp_path / "fsdd")
    monkeypatch.setenv("REALLM_DATA", str(tmp_path))
    sizes = ["--train-strings", 3, "--epochs", 2, "--test-strings", 2, "--dev-strings", 2]
    output = run_data("digits", "--out", tmp_path / "out", *sizes)
    assert "fsdd (real speech)" in output and len(read_cuts(tmp_path / "out" / "train.jsonl.gz")) == 6
    with pytest.raises(InputError, match=r"factors from 0\.5 to 2"):
        run_data("digits", "--out", tmp_path / "out2", "--speed", 3, *sizes)


def test_stereo_recordings(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.1, 0.1, (RATE, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    rows = [("id", "path", "text", "start", "end"), ("x", "a.wav", "one", 0.25, 0.75), ("y", "a.wav", "two", "", "")]
    run_data("tsv", table(tmp_path / "t.tsv", rows), "--out", tmp_path / "out")
    x, y = read_cuts(tmp_path / "out" / "t.jsonl.gz")
    np.testing.assert_allclose(load_audio(y), stereo.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(load_audio(x), stereo[4000:12000].mean(axis=1), atol=1e-7)
