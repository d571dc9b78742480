"""The digits corpus: splits that never mix, strings that are functions of their numbers, words where they are said."""

import inspect
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.cut import Cut, MixedCut

from reallm.cli.data import digits
from reallm.data.alignments import words
from reallm.data.corpora import fsdd
from reallm.data.corpora.digits import DigitsOptions, prepare
from reallm.data.corpora.strings import StringRecipe
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.errors import InputError
from tests.dummies.data import RATE, write_corpus, write_recordings

QUIET = {"announce": lambda line: None}
MANIFESTS = ("test", "test_noisy", "dev", "train")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("digits"), test_strings=100, dev_strings=100, train_strings=100)


def options(**kwargs: object) -> DigitsOptions:
    defaults: dict[str, object] = {
        "seed": 3,
        "train_strings": 10,
        "epochs": 2,
        "test_strings": 8,
        "dev_strings": 4,
        "synthetic_voices": 0,
        "sounds_share": 0.0,
    }
    return DigitsOptions(**{**defaults, **kwargs})  # type: ignore[arg-type]


def load(folder: Path, name: str) -> list[Cut]:
    return list(read_cuts(folder / f"{name}.jsonl.gz"))


def sources(cut: Cut) -> list[str]:
    """The recordings of a string, without its noise."""
    assert isinstance(cut, MixedCut)
    return [t.cut.recording.id for t in cut.tracks if t.cut.recording.id != "noise"]


def test_splits_never_mix(manifests: Path) -> None:
    for name, allowed in (("test", range(5)), ("test_noisy", range(5)), ("dev", range(5, 8)), ("train", range(8, 10))):
        used = {int(s.split("_")[2]) for cut in load(manifests, name) for s in sources(cut)}
        assert used == set(allowed), name


def test_strings(manifests: Path) -> None:
    cuts = load(manifests, "train")
    assert [c.id for c in cuts] == [f"train-{e:03d}-{i:05d}" for e in range(2) for i in range(100)]
    assert len({text_of(c) for c in cuts}) > 100
    assert {len(sources(c)) for c in cuts} == set(range(1, 9))
    for cut in cuts:
        assert text_of(cut) == " ".join(fsdd.DIGITS[int(s[0])] for s in sources(cut))
        assert {s.split("_")[1] for s in sources(cut)} == {cut.supervisions[0].speaker}
        assert isinstance(cut, MixedCut) and cut.tracks[0].cut.custom["epoch"] == int(cut.id.split("-")[1])


def test_no_audio_is_copied(manifests: Path) -> None:
    assert sorted(p.name for p in manifests.iterdir()) == sorted([*(f"{m}.jsonl.gz" for m in MANIFESTS), "corpus.json", "noise.flac"])


def test_words_are_where_they_are_said(manifests: Path) -> None:
    """Measured in the audio: the tones' own begins and ends, which the recordings surround with silence."""
    for cut in load(manifests, "test")[:30]:
        audio = load_audio(cut).astype(np.float64)
        found = words(cut)
        assert " ".join(w.word for w in found) == text_of(cut)
        speech = np.zeros(len(audio), dtype=bool)
        for word in found:
            begin, end = round(word.start * RATE), round(word.end * RATE)
            assert 0.09 < word.end - word.start < 0.16
            speech[begin:end] = True
            inside = (audio[begin + 80 : end - 80] ** 2).mean()
            for edge in (audio[begin : begin + 100], audio[end - 100 : end]):
                assert (edge**2).mean() > 0.05 * inside
        if not speech.all():
            assert (audio[~speech] ** 2).mean() < 0.01 * (audio[speech] ** 2).mean()


def test_silences_reach_down_to_none(manifests: Path) -> None:
    cuts = load(manifests, "train")
    found = [words(c) for c in cuts]
    unbroken = [w for c, w in zip(cuts, found, strict=True) if sum(x.end - x.start for x in w) == pytest.approx(c.duration) and len(w) > 2]
    assert unbroken
    gaps = [b.start - a.end for w in found for a, b in pairwise(w)]
    assert min(gaps) == pytest.approx(0, abs=1e-9) and max(gaps) > 0.4
    assert any(w[0].start > 0.3 for w in found)
    assert any(c.duration - w[-1].end < 1e-6 for c, w in zip(cuts, found, strict=True))


def test_levels(manifests: Path) -> None:
    cuts = load(manifests, "train")
    levels = [10 * np.log10((load_audio(c) ** 2).mean()) for c in cuts]
    assert np.ptp(levels) > 12
    assert max(np.abs(load_audio(c)).max() for c in cuts) < 1.0


def test_noisy_test_is_the_same_strings_in_noise(manifests: Path) -> None:
    ratios = []
    for clean, noisy in zip(load(manifests, "test"), load(manifests, "test_noisy"), strict=True):
        assert noisy.id == clean.id.replace("test", "test_noisy") and text_of(noisy) == text_of(clean) and sources(noisy) == sources(clean)
        assert words(noisy) == words(clean)
        quiet, loud = load_audio(clean), load_audio(noisy)
        speech = np.concatenate([quiet[round(w.start * RATE) : round(w.end * RATE)] for w in words(clean)])
        ratios.append(10 * np.log10((speech**2).mean() / ((loud - quiet) ** 2).mean()))
    assert -4 < min(ratios) < 2 and 8 < max(ratios) < 14  # words differ in level by up to 3 dB
    assert 4 < np.mean(ratios) < 6.5


def test_our_audio_is_lhotses(manifests: Path) -> None:
    for name in MANIFESTS:
        for cut in load(manifests, name)[:10]:
            np.testing.assert_array_equal(load_audio(cut), cut.load_audio()[0])


def test_a_string_is_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    data = write_recordings(tmp_path)
    few, many, other = (tmp_path / n for n in ("few", "many", "other"))
    prepare(data, few, options(), **QUIET)
    prepare(data, many, options(train_strings=15, epochs=3, test_strings=12), **QUIET)
    prepare(data, other, options(seed=4), **QUIET)

    def by_id(folder: Path, name: str) -> dict[str, object]:
        return {c.id: (sources(c), [t.offset for t in c.tracks], words(c)) for c in load(folder, name)}  # type: ignore[union-attr]

    for name in ("train", "test"):
        more = by_id(many, name)
        assert all(more[key] == value for key, value in by_id(few, name).items())
    assert by_id(few, "test") == by_id(other, "test")
    assert by_id(few, "train") != by_id(other, "train")


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    data, out = write_recordings(tmp_path), tmp_path / "out"
    said: list[str] = []
    first = prepare(data, out, options(), announce=said.append)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert prepare(data, out, options(), announce=said.append) == first
    assert before == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert "already holds" in said[-1]
    (out / "dev.jsonl.gz").unlink()
    prepare(data, out, options(), announce=said.append)
    assert len(load(out, "dev")) == 4


def test_out_that_holds_something_else(tmp_path: Path) -> None:
    data, out = write_recordings(tmp_path, indices=9), tmp_path / "out"
    out.mkdir()
    (out / "corpus.json").write_text('{"corpus": "mine", "real": true, "splits": {}}')
    with pytest.raises(InputError, match="already holds the corpus 'mine'"):
        prepare(data, out, options(), **QUIET)
    (out / "corpus.json").unlink()
    soundfile.write(out / "noise.flac", np.zeros(16000), 16000)
    prepare(data, out, options(), **QUIET)
    assert soundfile.info(out / "noise.flac").samplerate == RATE


def test_corpus_record(manifests: Path) -> None:
    record = json.loads((manifests / "corpus.json").read_text())
    assert record["corpus"] == "fsdd" and record["real"] is True
    assert record["speakers"] == ["ada", "bo"] and record["recordings"] == 200 and record["sample_rate"] == RATE
    assert record["splits"]["train"]["strings"] == 200 and record["splits"]["dev"]["speakers"] == 2


def test_held_out_speaker(tmp_path: Path) -> None:
    data = write_recordings(tmp_path, speakers=("ada", "bo", "cy"))
    prepare(data, tmp_path / "out", options(held_out_speaker="bo"), **QUIET)
    speakers = {name: {c.supervisions[0].speaker for c in load(tmp_path / "out", name)} for name in MANIFESTS}
    assert speakers["test"] == speakers["test_noisy"] == {"bo"}
    assert speakers["train"] == {"ada", "cy"} and "bo" not in speakers["dev"]
    with pytest.raises(InputError, match=r"unknown speaker 'boo' \(did you mean 'bo'\?\): one of ada, bo, cy"):
        prepare(data, tmp_path / "out2", options(held_out_speaker="boo"), **QUIET)
    assert not (tmp_path / "out2").exists()


def test_speed_moves_the_words_along(tmp_path: Path) -> None:
    data = write_recordings(tmp_path)
    calm = StringRecipe(max_gap=0.2)
    prepare(data, tmp_path / "out", options(speeds=(0.8,), recipe=calm), **QUIET)
    for cut in load(tmp_path / "out", "train"):
        audio = load_audio(cut)
        np.testing.assert_array_equal(audio, cut.load_audio()[0])
        assert isinstance(cut, MixedCut)
        for word, track in zip(words(cut), cut.tracks[1:], strict=True):
            assert word.end - word.start == pytest.approx(track.cut.duration) and 0.11 < track.cut.duration < 0.2
    for cut in load(tmp_path / "out", "test"):
        assert all(w.end - w.start < 0.16 for w in words(cut))


def test_other_sounds_are_in_training_alone(tmp_path: Path) -> None:
    """In their share of the strings, beside no word, as long and as loud as the recipe says; and no word of the alignment is theirs."""
    data, recipe = write_recordings(tmp_path), StringRecipe(sounds_db=(-3.0, 3.0))  # as loud as speech
    prepare(data, tmp_path / "with", options(sounds_share=0.5, train_strings=60, recipe=recipe), **QUIET)
    prepare(data, tmp_path / "without", options(train_strings=60, recipe=recipe), **QUIET)
    assert not (tmp_path / "without" / "sounds.flac").exists()
    for name in ("test", "test_noisy", "dev"):
        for one, other in zip(load(tmp_path / "with", name), load(tmp_path / "without", name), strict=True):
            np.testing.assert_array_equal(load_audio(one), load_audio(other))
    places: set[str] = set()
    sounding = 0
    for cut in load(tmp_path / "with", "train"):
        assert isinstance(cut, MixedCut)
        assert text_of(cut) == " ".join(w.word for w in words(cut))
        audio = load_audio(cut)
        np.testing.assert_array_equal(audio, cut.load_audio()[0])
        assert np.abs(audio).max() < 1
        tracks = [track for track in cut.tracks if track.cut.recording.id == "sounds"]
        sounding += len(tracks)
        for track in tracks:
            start, end = track.offset, track.offset + track.cut.duration
            assert 0.5 <= track.cut.duration <= 2.5 and end <= cut.duration + 1e-9
            assert all(word.end <= start + 1e-9 or word.start >= end - 1e-9 for word in words(cut))
            before = sum(word.end <= start + 1e-9 for word in words(cut))
            places.add("start" if not before else "end" if before == len(words(cut)) else "between")
            said = np.concatenate([audio[round(w.start * RATE) : round(w.end * RATE)] for w in words(cut)])
            heard = audio[round(start * RATE) : round(end * RATE)]
            assert abs(10 * np.log10((heard**2).mean() / (said**2).mean())) < 7  # words differ in level by 3 dB, to and fro
    assert places == {"start", "end", "between"} and 40 < sounding < 80


def test_other_sounds_are_no_louder_than_the_loudest_string(tmp_path: Path) -> None:
    recipe = StringRecipe(sounds_db=(40.0, 40.0))
    prepare(write_recordings(tmp_path), tmp_path / "out", options(sounds_share=1.0, train_strings=8, recipe=recipe), **QUIET)
    for cut in load(tmp_path / "out", "train"):
        assert isinstance(cut, MixedCut)
        (track,) = (track for track in cut.tracks if track.cut.recording.id == "sounds")
        heard = load_audio(cut)[round(track.offset * RATE) : round((track.offset + track.cut.duration) * RATE)]
        assert 10 * np.log10((heard**2).mean()) == pytest.approx(recipe.level_db[1], abs=0.2)


def test_broken_files_are_skipped_and_listed(tmp_path: Path) -> None:
    data, out = write_recordings(tmp_path, indices=12), tmp_path / "out"
    victims = sorted((data / "recordings").iterdir())[20:22]
    victims[0].write_bytes(victims[0].read_bytes()[:1000])
    victims[1].write_text("hello")
    said: list[str] = []
    record = prepare(data, out, options(), announce=said.append)
    assert set(record["skipped"]) == {v.name for v in victims}
    assert "truncated: 478 of" in record["skipped"][victims[0].name]
    assert sum("skipped" in line for line in said) == 2
    for victim in sorted((data / "recordings").iterdir())[40:44]:
        victim.write_bytes(b"")
    with pytest.raises(InputError, match=r"6 of 240 audio files .* are broken: .*fetch, repair or remove them"):
        prepare(data, tmp_path / "out2", options(), **QUIET)
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("make", [False, True])
def test_missing_and_empty_folders(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "data" / "recordings").mkdir(parents=True)
    with pytest.raises(InputError, match="has no recordings named" if make else "is missing"):
        prepare(tmp_path / "data", tmp_path / "out", options(), **QUIET)
    assert not (tmp_path / "out").exists()


def test_too_few_recordings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no train recordings"):
        prepare(write_recordings(tmp_path, indices=6), tmp_path / "out", options(), **QUIET)


def test_synthesized_when_nothing_is_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reallm.data import synthesis

    original = synthesis.synthesize_digits
    monkeypatch.setattr(synthesis, "synthesize_digits", lambda folder, count, repeats, rate: original(folder, 2, 9, rate))
    monkeypatch.setattr(fsdd, "ARCHIVE", (tmp_path / "gone").as_uri())
    said: list[str] = []
    record = prepare(None, tmp_path / "out", options(), announce=said.append)
    assert record["corpus"] == "espeak-ng digits" and record["real"] is False
    assert said[1].startswith("the dataset cannot be had: ") and said[2].startswith("NOT REAL SPEECH")
    again = prepare(tmp_path / "out" / "espeak", tmp_path / "out2", options(synthetic_voices=2, synthetic_share=1.0), **QUIET)
    assert again["real"] is False
    assert "mixed_into_training" not in again and not (tmp_path / "out2" / "voices-2").exists(), "voices of the test would be among them"


def test_synthetic_voices_are_in_training_alone(tmp_path: Path) -> None:
    mixed = options(synthetic_voices=2, synthetic_share=0.5, train_strings=40)
    record = prepare(write_recordings(tmp_path), tmp_path / "out", mixed, **QUIET)
    assert record["real"] and record["mixed_into_training"] == "2 espeak-ng voices, which speak 50 % of the training strings"
    speakers = {name: {c.supervisions[0].speaker for c in load(tmp_path / "out", name)} for name in MANIFESTS}
    assert {"espeakenusm1", "espeakenf1", "ada", "bo"} == speakers["train"]
    assert speakers["test"] | speakers["dev"] == {"ada", "bo"}


def test_without_espeak_the_way_around_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reallm.data.synthesis import Synthesizer

    monkeypatch.setattr(Synthesizer, "_instance", None)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    extra = r"espeak-ng is not installed: pip install '\.\[synth\]' in your clone of reallm"
    with pytest.raises(InputError, match=rf"^{extra}, or mix no synthetic voices into training: --synthetic-voices 0$"):
        prepare(write_recordings(tmp_path), tmp_path / "out", options(synthetic_voices=2), **QUIET)
    monkeypatch.setattr(fsdd, "ARCHIVE", (tmp_path / "gone").as_uri())
    with pytest.raises(InputError, match=rf"^{extra}, or give real recordings with --data$"):
        prepare(None, tmp_path / "out2", options(), **QUIET)


def test_trimmed_by_energy() -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-3, 4000).astype(np.float32) + 0.1
    quiet[1200:2000] += np.sin(np.arange(800)).astype(np.float32) * 0.3
    assert fsdd.speech_span(quiet, RATE) == (1200, 2000)
    assert fsdd.speech_span(np.ones(100, dtype=np.float32) * np.resize([1, -1], 100), RATE) == (0, 100)


def test_real_recordings(real_data: Path, tmp_path: Path) -> None:
    """The dataset itself: all of it is readable, and words are of the length of words."""
    if not (real_data / "fsdd").is_dir():
        pytest.skip("no fsdd in $REALLM_DATA")
    record = prepare(real_data / "fsdd", tmp_path, options(), **QUIET)
    assert record["real"] is True and len(record["speakers"]) == 6 and record["skipped"] == {}
    lengths = [w.end - w.start for c in load(tmp_path, "train") for w in words(c)]
    assert 0.25 < np.mean(lengths) < 0.6 and max(lengths) < 1.5


def test_recordings_of_two_rates(tmp_path: Path) -> None:
    data = write_recordings(tmp_path)
    path = data / "recordings" / "0_ada_0.wav"
    soundfile.write(path, soundfile.read(path)[0], 16000)
    with pytest.raises(InputError, match=r"sample rates \[8000, 16000\]"):
        prepare(data, tmp_path / "out", options(), **QUIET)


def test_what_the_command_makes_by_default_is_what_the_recipe_makes() -> None:
    script = (Path(__file__).parents[4] / "egs/digits/run.sh").read_text()
    recipe = {name: float(value) for name, value in re.findall(r"^(\w+)=([\d.]+) +#", script, re.MULTILINE)}
    command = {name: parameter.default for name, parameter in inspect.signature(digits).parameters.items()}
    of_recipe = {"seed": "seed", "train_strings": "train_strings", "epochs": "data_epochs"} | {
        name: name for name in ("test_strings", "dev_strings", "synthetic_voices", "synthetic_share", "sounds_share")
    }
    for name, called in of_recipe.items():
        assert command[name] == getattr(DigitsOptions(), name) == recipe[called], name
