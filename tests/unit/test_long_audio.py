"""tools/bench/long_audio.py on strings of levels: its file, its rows, its error rates."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import soundfile

from reallm.data.cuts import write_cuts
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut

SCRIPT = Path(__file__).parents[2] / "tools/bench/long_audio.py"


@pytest.mark.parametrize("piece_ms", [20, 1000])
def test_hours_are_joined_streamed_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object, piece_ms: int) -> None:
    cuts = [make_cut(tmp_path, number) for number in range(12)]
    wrong = cuts[3].supervisions[0].text.split()
    cuts[3].supervisions[0].text = " ".join(["never", *wrong[1:]])
    write_cuts(cuts, tmp_path / "test.jsonl.gz")
    out, written = tmp_path / "long.flac", tmp_path / "long.json"
    with registered_level_system():
        bundle = write_level_bundle(tmp_path / "bundle")
        options = ["--out", out, "--hours", 0.05, "--model", bundle, "--piece-ms", piece_ms, "--row-minutes", 1, "--json", written]
        monkeypatch.setattr(sys, "argv", [str(part) for part in ("long_audio.py", tmp_path / "test.jsonl.gz", *options)])
        monkeypatch.syspath_prepend(SCRIPT.parent)
        runpy.run_path(str(SCRIPT), run_name="__main__")
    found = json.loads(written.read_text())
    assert found["bench"] == "long_audio" and found["machine"]["processor"] and "--piece-ms" in found["command"]
    length = soundfile.info(out).duration
    assert 180 <= length < 190
    rows = found["rows"]
    assert [row["hours"] * 60 for row in rows[:3]] == pytest.approx([1, 2, 3], abs=piece_ms / 60_000)
    assert len(rows) in (3, 4) and rows[-1]["hours"] * 3600 == pytest.approx(length)
    for row in rows:
        assert row["rtf"] > 0 and 0 < row["push_ms_median"] <= row["push_ms_p99"] and row["memory_MB"] <= row["highest_MB"]
    passes = (found["notes"]["utterances"] + 8) // 12  # in each of which one word of the reference is wrong
    assert sum(row["errors"] for row in rows) == passes
    assert sum(row["words"] for row in rows) == found["notes"]["words_found"]
    printed = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "| hours | rtf | push ms median | push ms p99 | memory MB | highest MB | words | errors | WER percent |" in printed
