"""tools/bench/long_audio.py on strings of levels: its file, its rows, its error rates."""

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
    out = tmp_path / "long.flac"
    with registered_level_system():
        bundle = write_level_bundle(tmp_path / "bundle")
        options = ["--out", out, "--hours", 0.05, "--model", bundle, "--piece-ms", piece_ms, "--row-minutes", 1]
        monkeypatch.setattr(sys, "argv", [str(part) for part in ("long_audio.py", tmp_path / "test.jsonl.gz", *options)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()  # type: ignore[attr-defined]
    assert 180 <= soundfile.info(out).duration < 190
    memory = [line.split() for line in printed[2:] if line.count(".") == 4]
    assert [len(row) for row in memory] == [4] * len(memory) and len(memory) >= 3
    errors = [line.split() for line in printed[printed.index("  from h  words  errors   WER %") + 1 :]]
    utterances = int(printed[0].split()[-2])
    passes = (utterances + 8) // 12  # in each of which one word of the reference is wrong
    assert sum(int(row[2]) for row in errors) == passes
    assert len(errors) in (3, 4)
