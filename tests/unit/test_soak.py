"""tools/bench/soak.py on strings of levels, for seconds: its rows, its file, and what makes it fail."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from reallm.data.cuts import write_cuts
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut
from tests.dummies.recognizer import LevelSystem

SCRIPT = Path(__file__).parents[2] / "tools/bench/soak.py"


def soak(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> tuple[int, dict[str, object]]:
    write_cuts([make_cut(folder, number) for number in range(8)], folder / "test.jsonl.gz")
    with registered_level_system():
        bundle = write_level_bundle(folder / "bundle")
        given = [folder / "test.jsonl.gz", "--model", bundle, "--json", folder / "soak.json", "--threads", 1, *options]
        monkeypatch.setattr(sys, "argv", [str(part) for part in ("soak.py", *given)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(end.value.code or 0), json.loads((folder / "soak.json").read_text())


def test_streams_that_misbehave_cost_no_other_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = soak(
        *(tmp_path, monkeypatch, "--minutes", 0.07, "--streams", 6, "--misbehaving", 0.5, "--speed", 8, "--row-minutes", 0.02),
        *("--idle-timeout", 0.5, "--queue", 0.5, "--growth-mb", 1000),
    )
    printed = capsys.readouterr().out.splitlines()
    assert status == 0, printed
    assert found["words_lost"] == found["words_inserted"] == found["slots_still_taken"] == 0 and found["wrong"] == []
    assert isinstance(found["misbehaved"], dict) and len(found["misbehaved"]) >= 5
    assert isinstance(found["words"], int) and found["words"] > 40
    rows = [line.split() for line in printed[1:] if len(line.split()) == 5 and line.strip()[0].isdigit()]
    assert len(rows) >= 3 and isinstance(found["memory_mb"], list) and len(found["memory_mb"]) == len(rows)


def test_a_lost_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    step = LevelSystem.step

    def deaf_row(self, wav, lens, final, state):  # type: ignore[no-untyped-def]
        wav[1:2] = 0
        return step(self, wav, lens, final, state)

    monkeypatch.setattr(LevelSystem, "step", deaf_row)
    status, found = soak(tmp_path, monkeypatch, "--minutes", 0.01, "--streams", 2, "--misbehaving", 0, "--speed", 0, "--growth-mb", 1000)
    assert status == 1
    assert isinstance(found["words_lost"], int) and found["words_lost"] > 0
    assert "'' instead of '" in capsys.readouterr().out
