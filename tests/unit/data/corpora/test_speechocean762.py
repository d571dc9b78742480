"""speechocean762, as it comes and as tables: the same splits of both, by speakers and ages."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reallm.data.corpora.speechocean762 import prepare
from reallm.data.cuts import read_cuts, speaker_of, text_of
from reallm.errors import InputError
from reallm.metrics.provenance import corpus_of
from tests.dummies.command import run_data
from tests.dummies.own_data import table, write_audio

# Part → speaker → years; each says two sentences.
SPEAKERS = {"train": {"0001": 6, "0002": 9, "0003": 20, "0004": 31, "0005": 15}, "test": {"0006": 16, "0007": 15}}


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
    record = prepare(tmp_path, tmp_path / "out", dev_speakers=2, tick=files.append)
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


def test_the_real_corpus(real_data: Path) -> None:
    """Its tables alone: the audio is looked at by whoever prepares it."""
    from reallm.data.corpora.speechocean762 import _ages, _read, find_root

    if not (real_data / "speechocean762").is_dir():
        pytest.skip(f"no speechocean762 in {real_data}")
    root = find_root(real_data)
    utterances, ages = _read(root, "test"), _ages(root, "test")
    assert len(utterances) == 2180 and sum(ages[str(u.speaker)] >= 16 for u in utterances) == 900


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REALLM_DATA", raising=False)
    with pytest.raises(InputError, match="no recordings: name the folder of speechocean762 with --data DIR, or set REALLM_DATA"):
        run_data("speechocean762", "--out", tmp_path / "out")
    write_tables(tmp_path / "data/speechocean762")
    monkeypatch.setenv("REALLM_DATA", str(tmp_path / "data"))
    assert "test-child" in run_data("speechocean762", "--out", tmp_path / "out", "--dev-speakers", 2, "--jobs", 1)
    assert len(read_cuts(tmp_path / "out/dev.jsonl.gz")) == 4
