"""``reallm transcribe --end-of-speech``: a line, a cue and a segment end where somebody has stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.dummies.command import run
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.spoken_digits import RATE, two_pauses


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    soundfile.write(path, two_pauses()[: 3 * RATE], RATE)
    return path


@pytest.fixture
def levels(tmp_path: Path) -> Iterator[Path]:
    with registered_level_system():
        yield write_level_bundle(tmp_path / "bundle")


def test_lines_segments_and_cues(file: Path, capsys: Any) -> None:
    assert run("transcribe", file) == 0
    (whole,) = capsys.readouterr().out.splitlines()
    assert run("transcribe", file, "--end-of-speech", 0.8) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines) == whole and len(lines) == 2 and len(lines[0].split()) == 2
    assert run("transcribe", file, file, "--end-of-speech", 0.8) == 0
    assert capsys.readouterr().out.splitlines() == [f"{file}: {line}" for line in lines] * 2
    assert run("transcribe", file, "--end-of-speech", 0.8, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == whole and [segment["text"] for segment in result["segments"]] == lines
    ends = [segment["ended_at"] for segment in result["segments"]]
    assert 1.5 < ends[0] < 2.5 and ends[1] is None
    assert [segment["words_so_far"] for segment in result["segments"]] == [2, len(whole.split())]
    assert run("transcribe", file, "--end-of-speech", 9, "--json") == 0
    assert [segment["text"] for segment in json.loads(capsys.readouterr().out)["segments"]] == [whole]
    cues = {}
    for arguments in ((), ("--end-of-speech", 0.3)):
        assert run("transcribe", file, "--srt", *arguments) == 0
        cues[arguments] = capsys.readouterr().out.strip().split("\n\n")
    assert len(cues["--end-of-speech", 0.3]) > len(cues[()])


def test_in_real_time_a_line_ends_when_it_is_known(file: Path, capsys: Any) -> None:
    assert run("transcribe", file, "--end-of-speech", 0.4, "--realtime") == 0
    shown = capsys.readouterr().out
    assert run("transcribe", file, "--end-of-speech", 0.4) == 0
    assert shown == capsys.readouterr().out and len(shown.splitlines()) > 1


def test_a_system_that_does_not_know_is_refused_before_a_file_is_read(levels: Path, tmp_path: Path, capsys: Any) -> None:
    assert run("transcribe", tmp_path / "none.wav", "--model", levels, "--end-of-speech", 0.8) == 2
    said = "reallm: error: end_of_speech 0.8: system 'levels' has no such option of its streams: leave it out\n"
    assert capsys.readouterr() == ("", said)
    assert run("transcribe", tmp_path / "none.wav", "--end-of-speech", -1) == 2
    assert "end_of_speech -1: seconds of silence, such as 0.8" in capsys.readouterr().err
