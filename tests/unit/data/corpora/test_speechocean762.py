"""speechocean762, as it comes and as tables: the same splits of both, by speakers and ages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reallm.data.corpora import speechocean762
from reallm.data.corpora.speechocean762 import check_complete, find_root, prepare
from reallm.data.cuts import read_cuts, speaker_of, text_of
from reallm.errors import InputError
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.own_data import table, write_audio

# Part → speaker → years; each says two sentences.
SPEAKERS = {"train": {"0001": 6, "0002": 9, "0003": 20, "0004": 31, "0005": 15}, "test": {"0006": 16, "0007": 15}}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of five speakers in train and two in test, each of whom says two sentences."""
    monkeypatch.setattr(speechocean762, "PARTS", {"train": 10, "test": 4})
    monkeypatch.setattr(speechocean762, "EACH", 2)


def ids(speaker: str) -> list[str]:
    return [f"{speaker}-{n}" for n in range(2)]


def write_tables(root: Path) -> Path:
    for part, speakers in SPEAKERS.items():
        rows: list[tuple[object, ...]] = [("utt_id", "speaker", "gender", "age", "seconds", "path", "text")]
        for speaker, age in speakers.items():
            write_audio(root / part / speaker, ids(speaker), 0.2, ".flac")
            rows += [(name, speaker, "f", age, 0.2, f"{part}/{speaker}/{name}.flac", "MARK IS HERE") for name in ids(speaker)]
        table(root / f"{part}.tsv", rows)
    return root


def write_original(root: Path) -> Path:
    for part, speakers in SPEAKERS.items():
        (root / part).mkdir(parents=True)
        names = {name: speaker for speaker in speakers for name in ids(speaker)}
        for speaker in speakers:
            write_audio(root / f"WAVE/SPEAKER{speaker}", ids(speaker), 0.2, ".WAV")
        table(root / part / "wav.scp", [(name, f"WAVE/SPEAKER{speaker}/{name}.WAV") for name, speaker in names.items()])
        table(root / part / "text", [(name, "MARK IS HERE") for name in names])
        table(root / part / "utt2spk", list(names.items()))
        table(root / part / "spk2age", list(speakers.items()))
    return root


@pytest.mark.parametrize("write", [write_tables, write_original])
def test_splits(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path / "speechocean762")
    files: list[int] = []
    said: list[str] = []
    record = prepare(tmp_path, tmp_path / "out", dev_speakers=2, tick=files.append, announce=said.append)
    assert not said, "it is whole"
    assert (len(files), record["corpus"], record["real"]) == (14, "speechocean762", True)
    cuts = {name: list(read_cuts(tmp_path / f"out/{name}.jsonl.gz")) for name in record["splits"]}
    speakers = {name: {speaker_of(cut) for cut in found} for name, found in cuts.items()}
    assert (speakers["test-adult"], speakers["test-child"]) == ({"0006"}, {"0007"})
    assert len(speakers["dev"]) == 2 and len(speakers["dev"] & {"0003", "0004"}) == 1, "one adult and one child"
    assert speakers["train"] | speakers["dev"] == set(SPEAKERS["train"]) and not speakers["train"] & speakers["dev"]
    assert all(text_of(cut) == "MARK IS HERE" and len(found) == 2 * len(speakers[n]) for n, found in cuts.items() for cut in found)
    assert corpus_of(tmp_path / "out/dev.jsonl.gz")["licence"].startswith("free for")


@pytest.mark.parametrize("write", [write_tables, write_original])
def test_an_age_that_is_not_known_is_refused(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path)
    for name in ("test.tsv", "test/spk2age"):
        if (root / name).is_file():
            (root / name).write_text((root / name).read_text().replace("\t16", "\tx"))
    with pytest.raises(InputError, match="the age of speaker '0006' is 'x': a whole number"):
        prepare(root, tmp_path / "out", dev_speakers=2)
    if (root / "test/spk2age").is_file():
        (root / "test/spk2age").write_text("0007 15\n")
        with pytest.raises(InputError, match="the age of speaker '0006' of utterance '0006-0' is not known"):
            prepare(root, tmp_path / "out", dev_speakers=2)
        (root / "test/spk2age").unlink()
        with pytest.raises(InputError, match="spk2age is missing: adults and children"):
            prepare(root, tmp_path / "out", dev_speakers=2)


def test_what_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold speechocean762"):
        prepare(tmp_path, tmp_path / "out")
    root = write_tables(tmp_path)
    with pytest.raises(InputError, match="--dev-speakers 4: train has 5 speakers, 2 of this age"):
        prepare(root, tmp_path / "out", dev_speakers=4)
    (root / "test.tsv").write_text((root / "train.tsv").read_text())
    with pytest.raises(InputError, match="5 speakers are in train and in test, such as '0001'"):
        prepare(root, tmp_path / "out", dev_speakers=2)


@pytest.mark.parametrize(("years", "empty"), [("16", "test-adult"), ("15", "test-child")])
def test_a_split_without_utterances_is_named_before_anything_is_written(years: str, empty: str, tmp_path: Path) -> None:
    root = write_tables(tmp_path)
    other = {"16": "15", "15": "16"}[years]
    (root / "test.tsv").write_text((root / "test.tsv").read_text().replace(f"\t{years}\t", f"\t{other}\t"))
    with pytest.raises(InputError, match=rf"^{root}: no utterances for {empty}: "):
        prepare(root, tmp_path / "out", dev_speakers=2)
    with pytest.raises(InputError, match=rf"^{root}: no utterances for dev: "):
        prepare(write_tables(tmp_path), tmp_path / "out", dev_speakers=0)
    assert not (tmp_path / "out").exists()


def without(root: Path, part: str, *names: str) -> Path:
    """Lines of some utterances, or all (none named), are cut from the tables of a part, or from its text."""
    for file in (root / f"{part}.tsv", root / part / "text"):
        if file.is_file():
            lines = file.read_text().splitlines()
            kept = [line for n, line in enumerate(lines) if (n == 0 and file.suffix) or (names and line.split("\t")[0] not in names)]
            file.write_text("".join(f"{line}\n" for line in kept))
    return root


def refusal(root: Path, subset: bool = False) -> str:
    with pytest.raises(InputError) as error:
        check_complete(find_root(root), subset, announce=lambda line: pytest.fail(f"told of what is refused: {line}"))
    start, _, said = str(error.value).partition(" is not speechocean762 as it was published: ")
    assert start == str(root.resolve()) and "\n" not in said
    return said


def taken(root: Path, subset: bool = False) -> list[str]:
    """What is said of a corpus that is taken."""
    said: list[str] = []
    check_complete(find_root(root), subset, said.append)
    return [line.removeprefix(f"{root.resolve()}: ") for line in said]


FIX = "download or copy it again (openslr.org/101)"
OR_SUBSET = f"{FIX}, or take what there is with --subset"


@pytest.mark.parametrize("write", [write_tables, write_original])
def test_recordings_that_are_missing_are_named(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path)
    gone = sorted(path for path in root.rglob("000[67]-1.*"))
    for path in gone:
        path.unlink()
    for subset in (False, True):
        assert refusal(root, subset) == f"test lacks the recordings of 2 of 4 utterances, such as {gone[0].resolve()}: {FIX}"


def test_of_the_original_all_utterances_are_needed(tmp_path: Path) -> None:
    root = without(without(write_original(tmp_path), "train", "0001-0", "0001-1", "0002-0"), "test", "0006-0")
    assert refusal(root) == f"train has 7 of 10 utterances; test has 3 of 4 utterances: {OR_SUBSET}"
    assert taken(root, subset=True) == ["train has 7 of 10 utterances: taken as it is", "test has 3 of 4 utterances: taken as it is"]
    (root / "test/wav.scp").unlink()
    with pytest.raises(InputError, match=rf"^{root} has no test/wav\.scp, nor test\.tsv, but train: download or copy"):
        prepare(root, tmp_path / "out", dev_speakers=2)


def test_tables_may_leave_speakers_out_but_nothing_of_those_that_they_list(tmp_path: Path) -> None:
    root = without(write_tables(tmp_path / "a"), "test", "0006-0", "0006-1")
    left = sorted((root / "test/0006").iterdir())
    assert refusal(root) == f"test has 2 of 4 utterances, and 2 recordings are in no table, such as {left[0].resolve()}: {OR_SUBSET}"
    assert taken(root, subset=True) == ["test has 2 of 4 utterances: taken as it is"]
    for path in left:
        path.unlink()
    (root / "test/notes.txt").touch()
    assert taken(root) == ["test has 2 of 4 utterances, all 2 of each of its 1 speakers: taken as it is"]
    root = without(write_tables(tmp_path / "b"), "train", "0002-1", "0004-0", "0001-0", "0001-1")
    count = "train has 6 of 10 utterances"
    assert refusal(root) == f"{count}, and of 2 of its 4 speakers, such as '0002', not all 2: {OR_SUBSET}"
    assert taken(root, subset=True) == [f"{count}: taken as it is"]
    assert refusal(without(write_tables(tmp_path / "c"), "test")) == f"test has 0 of 4 utterances: {OR_SUBSET}"


def test_audio_behind_a_link_is_the_same_audio(tmp_path: Path) -> None:
    root = without(write_tables(tmp_path / "a"), "test", "0006-0", "0006-1")
    (root / "test").rename(tmp_path / "elsewhere")
    (root / "test").symlink_to(tmp_path / "elsewhere")
    assert "and 2 recordings are in no table" in refusal(root)
    for path in (tmp_path / "elsewhere/0006").iterdir():
        path.unlink()
    assert len(taken(root)) == 1


def test_what_is_there_twice_is_named(tmp_path: Path) -> None:
    root = write_tables(tmp_path / "a")
    table = root / "test.tsv"
    line = table.read_text().splitlines()[1]
    table.write_text(f"{table.read_text()}{line}\n{line.replace('0006-0', '0006-2', 1)}\n")
    for subset in (False, True):
        assert refusal(root, subset) == f"test has 2 ids or recordings twice, such as '0006-0': {FIX}"
    root = write_tables(tmp_path / "b")
    (root / "test.tsv").write_text((root / "test.tsv").read_text() + "x\t0008\tf\t9\t0.2\ttrain/0001/0001-0.flac\tHERE\n")
    audio = (root / "train/0001/0001-0.flac").resolve()
    assert refusal(root) == f"1 recordings are in train and in test, such as '{audio}': {FIX}"


def test_the_real_corpus(real_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole speakers of it: all of train, and most of test. What is in the recordings is looked at by whoever prepares it."""
    monkeypatch.undo()
    if not (real_data / "speechocean762").is_dir():
        pytest.skip(f"no speechocean762 in {real_data}")
    root = find_root(real_data)
    train, test = check_complete(root, subset=False)
    assert capsys.readouterr().out == f"{root}: test has 2180 of 2500 utterances, all 20 of each of its 109 speakers: taken as it is\n"
    assert len(train) == 2500 and sum(speechocean762._ages(root, "test")[str(u.speaker)] >= 16 for u in test) == 900


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REALLM_DATA", raising=False)
    with pytest.raises(InputError, match="no recordings: name the folder of speechocean762 with --data DIR, or set REALLM_DATA"):
        run_data("speechocean762", "--out", tmp_path / "out")
    write_tables(tmp_path / "data/speechocean762")
    monkeypatch.setenv("REALLM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(speechocean762, "PARTS", {"train": 10, "test": 5})
    options = ("--out", tmp_path / "out", "--dev-speakers", 2, "--jobs", 1)
    said = run_data("speechocean762", *options)
    assert "test-child" in said and "test has 4 of 5 utterances, all 2 of each of its 2 speakers: taken as it is\n" in said
    without(tmp_path / "data/speechocean762", "test", "0006-0")
    with pytest.raises(InputError, match="test has 3 of 5 utterances, and of 1 of its 2 speakers"):
        run_data("speechocean762", *options)
    assert "test has 3 of 5 utterances: taken as it is\n" in run_data("speechocean762", *options, "--subset")
    assert len(read_cuts(tmp_path / "out/dev.jsonl.gz")) == 4
