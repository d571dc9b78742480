"""``reallm transcribe`` on files that a level system understands."""

import json
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from reallm.bundle import load
from reallm.cli._formats import subtitles
from reallm.layers.int8_linear import Int8Linear
from reallm.streaming.compiled.linear import PackedLinear
from reallm.streaming.offline import recognizer_for
from reallm.streaming.recognizer import Stream
from tests.dummies.command import run
from tests.dummies.data import write_flac_of_unknown_length
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.recognizer import LevelSystem, say, text_of

DIGITS = [3, 1, 4]


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    with registered_level_system():
        yield write_level_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("name", "rate", "channels"), [("a.wav", 8000, 1), ("b.flac", 44100, 2), ("c.ogg", 16000, 1), ("d.aiff", 48000, 3), ("e.w64", 11025, 1)]
)
def test_any_rate_format_and_channels(bundle: Path, tmp_path: Path, name: str, rate: int, channels: int, capsys: Any) -> None:
    soundfile.write(tmp_path / name, np.stack([say(DIGITS, rate)] * channels, axis=1), rate)
    assert run("transcribe", tmp_path / name, "--model", bundle) == 0
    assert capsys.readouterr().out == text_of(DIGITS) + "\n"


def test_int8_weights_and_compiled_layers(bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", say(DIGITS), 8000)
    step, layers = LevelSystem.step, set[tuple[type, torch.dtype]]()

    def seen_step(self: LevelSystem, *given: Any) -> Any:
        layers.add((type(self.linear), self.linear.weight.dtype))
        return step(self, *given)

    monkeypatch.setattr(LevelSystem, "step", seen_step)
    for options, layer, dtype in (
        ([], torch.nn.Linear, torch.float32),
        (["--int8"], Int8Linear, torch.int8),
        (["--compiled"], PackedLinear, torch.float32),
        (["--int8", "--compiled"], PackedLinear, torch.int8),
    ):
        assert run("transcribe", tmp_path / "a.wav", "--model", bundle, *options) == 0
        assert capsys.readouterr().out == text_of(DIGITS) + "\n"
        assert layers == {(layer, dtype)}
        layers.clear()


def test_threads(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, unless more are asked for: with more, small models wait for threads."""
    soundfile.write(tmp_path / "a.wav", say(DIGITS), 8000)
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for options in ([], ["--threads", 3]):
        assert run("transcribe", tmp_path / "a.wav", "--model", bundle, *options) == 0
    assert chosen == [1, 3]
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--threads", 0) == 2


def test_json_has_what_the_manual_says(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    files = [tmp_path / "one.wav", tmp_path / "two.wav"]
    soundfile.write(files[0], say([1], 8000), 8000)
    soundfile.write(files[1], say(DIGITS, 16000), 16000)
    assert run("transcribe", *files, "--model", bundle, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["one", text_of(DIGITS)]
    assert list(lines[1]) == ["file", "text", "words", "seconds_of_audio", "rtf"]
    assert list(lines[1]["words"][0]) == ["word", "start", "end", "confidence", "emitted_at"]
    assert lines[1]["file"] == str(files[1])
    assert lines[1]["seconds_of_audio"] == pytest.approx(len(say(DIGITS, 16000)) / 16000, abs=1e-3)
    assert 0 < lines[1]["rtf"] < 5


def test_words_of_a_file_are_emitted_when_a_live_listener_would_have_seen_them(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    wav = np.concatenate([say(DIGITS), np.zeros(16000, dtype=np.float32)])
    soundfile.write(tmp_path / "a.wav", wav, 8000, subtype="FLOAT")
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--json") == 0
    told = [word["emitted_at"] for word in json.loads(capsys.readouterr().out)["words"]]
    stream = recognizer_for(load(bundle)).stream()
    for start in range(0, len(wav), 160):
        stream.accept_waveform(wav[start : start + 160], 8000)
        stream.result()
    live = [word.emitted_at for word in stream.finish().words]
    assert told == pytest.approx(live, abs=1e-3)
    assert len(set(live)) == len(DIGITS)


def test_subtitles_and_ctm(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "my talk.wav"
    soundfile.write(file, say(DIGITS), 8000)
    assert run("transcribe", file, "--model", bundle, "--ctm") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [("my_talk", "1", word) for word in text_of(DIGITS).split()]
    assert all(len(row) == 6 for row in rows)
    assert run("transcribe", file, "--model", bundle, "--srt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1"
    assert lines[1].startswith("00:00:00,") and " --> 00:00:0" in lines[1]
    assert " ".join(line for line in lines if line.islower()) == text_of(DIGITS)


def test_times_that_are_not_known_are_not_told(bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LevelSystem, "times_known", False, raising=False)
    soundfile.write(tmp_path / "a.wav", say(DIGITS), 8000)
    for option in ("--ctm", "--srt"):
        assert run("transcribe", tmp_path / "a.wav", "--model", bundle, option) == 2
        said = capsys.readouterr()
        fix = "does not know when words were spoken: use plain text or --json"
        assert (said.out, said.err) == ("", f"reallm: error: {option}: system 'levels' {fix}\n")
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--json") == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [(w["word"], w["start"], w["end"]) for w in words] == [(word, None, None) for word in text_of(DIGITS).split()]
    assert all(w["emitted_at"] > 0 for w in words)


def test_files_that_ctm_would_call_the_same_are_refused_before_any_is_transcribed(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    files = [tmp_path / "a/my talk.wav", tmp_path / "b/my_talk.flac"]
    for file in files:
        file.parent.mkdir()
        soundfile.write(file, say(DIGITS), 8000)
    assert run("transcribe", *files, "--model", bundle, "--ctm") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"reallm: error: --ctm: {files[0]} and {files[1]} are both called 'my_talk': call it once for each, or rename one\n"
    assert run("transcribe", files[0], files[0], "--model", bundle, "--ctm") == 2
    assert run("transcribe", *files, "--model", bundle, "--json") == 0


def test_cues_are_short() -> None:
    words = [{"word": f"w{n}", "start": n * 0.5, "end": n * 0.5 + 0.4} for n in range(30)] + [
        {"word": "late", "start": 7200.5, "end": 7201}
    ]
    cues = subtitles(words).strip().split("\n\n")
    assert [cue.split("\n")[0] for cue in cues] == [str(n + 1) for n in range(len(cues))]
    assert cues[-1] == f"{len(cues)}\n02:00:00,500 --> 02:00:01,000\nlate"
    assert all(len(cue.split("\n")[2].split()) <= 10 for cue in cues)


def test_bad_files_are_reported_and_good_ones_transcribed(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    good, empty, nan, noise = (tmp_path / name for name in ("good.wav", "empty.wav", "nan.wav", "noise.wav"))
    soundfile.write(good, say(DIGITS), 8000)
    soundfile.write(empty, np.zeros(0), 8000)
    broken = say(DIGITS)
    broken[-10] = np.nan
    soundfile.write(nan, broken, 8000, subtype="FLOAT")
    noise.write_bytes(b"this is not audio" * 100)
    assert run("transcribe", empty, nan, noise, tmp_path / "gone.wav", good, "--model", bundle) == 2
    out, err = capsys.readouterr()
    assert out == f"{good}: {text_of(DIGITS)}\n"
    errors = err.splitlines()
    assert len(errors) == 4
    for line, file, reason in zip(
        errors, (empty, nan, noise, tmp_path / "gone.wav"), ("no audio", "NaN", "soundfile", "no such file"), strict=True
    ):
        assert line.startswith(f"reallm: error: {file}: ")
        assert reason in line


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_a_file_that_was_cut_off_is_transcribed_as_far_as_it_goes(suffix: str, bundle: Path, tmp_path: Path, capsys: Any) -> None:
    file, whole = tmp_path / f"a.{suffix}", say(DIGITS * 9)
    soundfile.write(file, whole, 8000)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run("transcribe", file, "--model", bundle, "--json") == 0
    out, err = capsys.readouterr()
    heard = json.loads(out)
    assert text_of(DIGITS * 9).startswith(heard["text"]) and len(heard["text"].split()) >= 5
    claimed, there = f"{len(whole) / 8000:.2f} s", f"{heard['seconds_of_audio']:.2f} s"
    assert err == f"reallm: warning: {file}: its header claims {claimed}, and {there} of it can be read: only those are transcribed\n"
    file.write_bytes(file.read_bytes()[:44])
    assert run("transcribe", file, "--model", bundle) == 2
    assert capsys.readouterr().err.startswith(f"reallm: error: {file}: ")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_without_its_end_is_transcribed_with_a_warning(subtype: str, bundle: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "a.ogg"
    soundfile.write(file, say(DIGITS * 9), 8000, format="OGG", subtype=subtype)
    assert run("transcribe", file, "--model", bundle) == 0
    assert capsys.readouterr().err == ""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run("transcribe", file, "--model", bundle, "--json") == 0
    out, err = capsys.readouterr()
    heard = json.loads(out)
    assert heard["text"]
    there = f"{heard['seconds_of_audio']:.2f} s of it can be read"
    assert err == f"reallm: warning: {file}: the end of its Ogg stream is missing, and {there}: only those are transcribed\n"


def test_flac_of_unknown_length_is_transcribed_without_a_warning(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    write_flac_of_unknown_length(tmp_path / "a.flac", say(DIGITS))
    assert run("transcribe", tmp_path / "a.flac", "--model", bundle) == 0
    assert capsys.readouterr() == (text_of(DIGITS) + "\n", "")


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_mp3_is_heard_as_it_is_when_it_is_read_whole(
    rate: int, bundle: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, random = tmp_path / "a.mp3", np.random.default_rng(0)
    soundfile.write(file, random.normal(size=2 * rate) * np.repeat(random.uniform(0, 0.3, 20), rate // 10), rate)
    heard: list[np.ndarray] = []
    accept = Stream.accept_waveform

    def listening(stream: Stream, samples: np.ndarray, sample_rate: int) -> None:
        heard.append(samples)
        accept(stream, samples, sample_rate)

    monkeypatch.setattr(Stream, "accept_waveform", listening)
    assert run("transcribe", file, "--model", bundle) == 0
    assert capfd.readouterr().err == "", "libmpg123 writes there"
    assert {len(piece) for piece in heard[:-1]} == {rate // 50}
    whole, _ = soundfile.read(file, dtype="float32", always_2d=True)
    np.testing.assert_allclose(np.concatenate(heard), whole, rtol=0, atol=1e-6)


def test_audio_that_the_model_cannot_hear_well_is_warned_of(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    low, opposite, half, silent = (tmp_path / f"{name}.wav" for name in ("low", "opposite", "half", "silent"))
    wav = say(DIGITS)
    soundfile.write(low, say(DIGITS, 4000), 4000)
    for file, channels in ((opposite, [wav, -wav]), (half, [2 * wav, 0 * wav]), (silent, [0 * wav, 0 * wav])):
        soundfile.write(file, np.stack(channels, axis=1), 8000, subtype="FLOAT")
    assert run("transcribe", low, opposite, half, silent, "--model", bundle) == 0
    out, err = capsys.readouterr()
    assert f"{half}: {text_of(DIGITS)}\n" in out and f"{opposite}: \n" in out
    assert err.splitlines() == [
        f"reallm: warning: {low}: 4000 Hz is below the model's 8000 Hz: expect more errors, or record at 8000 Hz and more",
        f"reallm: warning: {opposite}: its channels cancel out in their mean, which is transcribed: give it one of them, or invert one",
    ]


def test_a_folder_is_told_from_a_file_that_is_missing(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    assert run("transcribe", tmp_path, "--model", bundle) == 2
    fix = f"name the files in it, such as {tmp_path}/*.wav"
    assert capsys.readouterr().err == f"reallm: error: {tmp_path}: a folder: {fix}\n"


def test_real_time_shows_words_as_they_come(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    audio = say([2, 5], trailing=0.1)
    soundfile.write(tmp_path / "a.wav", audio, 8000)
    begun = time.perf_counter()
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--realtime") == 0
    assert time.perf_counter() - begun >= len(audio) / 8000
    assert capsys.readouterr().out == "two five\n"
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--realtime", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == err.strip() == "two five"
    assert json.loads(out)["rtf"] < 0.9, "waiting for the speech counts as work"


def test_the_microphone(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class InputStream:
        """Says two digits, then Ctrl-C is pressed."""

        def __init__(self, samplerate: int, channels: int, dtype: str, blocksize: int, callback: Any) -> None:
            self.callback, self.blocksize = callback, blocksize

        def __enter__(self) -> None:
            audio = say([6, 1], trailing=0.0)[:, None]
            for begin in range(0, len(audio), self.blocksize):
                self.callback(audio[begin : begin + self.blocksize], self.blocksize, None, None)

        def __exit__(self, *error: object) -> None: ...

    module = types.ModuleType("sounddevice")
    module.InputStream, module.PortAudioError = InputStream, OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)

    import queue

    class Queue(queue.SimpleQueue[Any]):
        def get(self, *args: Any) -> Any:
            if self.empty():
                raise KeyboardInterrupt
            return super().get(*args)

    monkeypatch.setattr(queue, "SimpleQueue", Queue)
    assert run("transcribe", "--mic", "--model", bundle) == 0
    assert capsys.readouterr().out == "six one\n"


def test_wrong_use(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    (bundle.parent / "exp").mkdir()
    (bundle.parent / "exp" / "config.yaml").write_text("system: !new:os.system [false]\n")
    for arguments, message in (
        (["a.wav", "--json", "--srt", "--model", bundle], "choose one"),
        (["a.wav", "--mic", "--model", bundle], "one of the two"),
        (["a.wav", "b.wav", "--srt", "--model", bundle], "one file"),
        (["a.wav", "--model", bundle / "none"], "neither a bundle"),
        (["a.wav", "--model", bundle.parent / "exp"], "not exported"),
        (["--mic", "--model", bundle], "pip install '.[mic]' in your clone of reallm"),
    ):
        assert run("transcribe", *arguments) == 2
        assert message in capsys.readouterr().err
