"""tools/bench/soak.py on strings of levels, for seconds: its rows, its file, and what makes it fail."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from reallm.bundle import published
from reallm.data.cuts import write_cuts
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut
from tests.dummies.recognizer import LevelSystem

SCRIPT = Path(__file__).parents[2] / "tools/bench/soak.py"


def soak(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> tuple[int, dict[str, Any]]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
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
    row, notes = found["rows"][0], found["notes"]
    assert row["words_lost"] == row["words_inserted"] == row["slots_still_taken"] == row["ended_otherwise_than_they_should"] == 0
    assert len(notes["misbehaved"]) >= 5 and sum(notes["misbehaved"].values()) == row["misbehaved"] and notes["wrong"] == []
    assert row["words"] > 40 and 0 < row["last_word_after_p50_ms"] <= row["last_word_after_p99_ms"]
    rows = [line.split() for line in printed if len(line.split()) == 5 and line.strip()[0].isdigit()]
    assert len(rows) >= 3 and len(found["memory_mb"]) == len(rows) and row["memory_mb"] == found["memory_mb"][-1]
    assert found["command"].startswith("tools/bench/soak.py ") and found["machine"]["threads"] == 1 and found["date"].startswith("20")
    table = printed[printed.index("") + 2 :]
    assert table[1].startswith("| slots | streams | ") and table[3].startswith(f"| 6 | {row['streams']} | ")


def test_a_lost_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    step = LevelSystem.step

    def deaf_row(self, wav, lens, final, state):  # type: ignore[no-untyped-def]
        wav[1:2] = 0
        return step(self, wav, lens, final, state)

    monkeypatch.setattr(LevelSystem, "step", deaf_row)
    status, found = soak(tmp_path, monkeypatch, "--minutes", 0.01, "--streams", 2, "--misbehaving", 0, "--speed", 0, "--growth-mb", 1000)
    assert status == 1
    assert found["rows"][0]["words_lost"] > 0
    assert "'' instead of '" in capsys.readouterr().out


def test_compiled_layers_of_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/bundle").symlink_to(published("digits"))
    options = ("--minutes", 0.01, "--streams", 2, "--misbehaving", 0, "--speed", 0, "--growth-mb", 1000)
    _, found = soak(tmp_path, monkeypatch, *options, "--compiled", "--model", tmp_path / "exp")
    assert found["rows"][0]["streams"] > 0 and found["rows"][0]["words_lost"] == 0 and found["notes"]["wrong"] == []
