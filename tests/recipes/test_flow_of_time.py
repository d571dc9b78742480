"""egs/flow_of_time: a tiny clock from its configuration to its picture, without a line of speech code; what its tables count."""

import json
import math
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dummies.recipe import ROOT, calls, copy_recipe, run

RECIPE = ROOT / "egs/flow_of_time"
CLOCK = RECIPE / "local/clock.py"


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The recipe's scripts, which import each other."""
    monkeypatch.syspath_prepend(str(CLOCK.parent))
    yield CLOCK.parent
    for name in ("streams", "pictures"):
        sys.modules.pop(name, None)


def call(monkeypatch: pytest.MonkeyPatch, script: Path, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(part) for part in (script, *options)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("attention", [["window=8"], ["window=0", "capacity=300"]])
def test_a_tiny_clock_is_trained_run_and_drawn(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], attention: list[str]
) -> None:
    small = ["updates=2", "warmup=1", "dim=8", "layers=1", "batch=4", "inputs=30", *attention]
    overrides = [part for each in small for part in ("--override", each)]
    call(monkeypatch, local / "clock.py", "train", RECIPE / "conf/clock.yaml", "--exp", tmp_path, *overrides)
    call(monkeypatch, local / "clock.py", "run", tmp_path, "--times", 2, "--out", tmp_path / "run.json")
    result = json.loads((tmp_path / "run.json").read_text())
    assert (result["trained_inputs"], result["inputs"]) == (30, 60)
    assert len(result["streams"]) == 21 * 2 * 2 and {s["k"] for s in result["streams"] if not s["trained"]} == {6, 10, 14, 18, 22, 24}
    call(monkeypatch, local / "report_clock.py", f"tiny={tmp_path / 'run.json'}", "--out", tmp_path / "report", "--at", 1, "--at", 2)
    printed = capsys.readouterr().out
    assert "| tiny | told | never trained | identical | 2 | 6 |" in printed and "| tiny | shown | trained | noise 1 | 1 | 15 |" in printed
    assert result["training"] == json.loads((tmp_path / "training.json").read_text()) and result["training"]["updates"] == 2
    assert result["git"] == result["training"]["git"]
    assert f"tiny: 2 updates in {result['training']['seconds']:.0f} s by the clock, seed 1, at commit {result['git']}" in printed
    assert all((tmp_path / "report" / name).stat().st_size > 10000 for name in ("clock_drift.png", "clock_intervals.png"))
    old = tmp_path / "old.json"  # of a clock that did not write down how it was trained
    old.write_text(json.dumps({name: value for name, value in result.items() if name not in ("training", "git")}))
    call(monkeypatch, local / "report_clock.py", f"old={old}", "--out", tmp_path / "report", "--at", 1)
    assert "old: how it was trained is unknown; run at unknown.\n" in capsys.readouterr().out
    (tmp_path / "training.json").unlink()
    call(monkeypatch, local / "clock.py", "run", tmp_path, "--times", 1, "--out", old)
    assert "training" not in json.loads(old.read_text())


def test_strings_are_joined_with_a_window_without_it_and_with_a_model_that_never_had_one(tmp_path: Path) -> None:
    script = copy_recipe("flow_of_time", tmp_path)
    options = ["--stage", "long", "--stop-stage", "long"]
    data, joined = calls(script, "--data", "somewhere", *options)
    assert data.endswith("data digits --data somewhere --out exp/long --train-strings 1 --epochs 1 --dev-strings 1 --test-strings 200")
    measured = (
        "exp/long/test.jsonl.gz --out exp/report --strings 200 --seconds 1 --seconds 10 --seconds 90 --between 60.0 --between-strings 10"
    )
    packaged = "../../reallm/bundles/digits"
    models = f"--if-they-attend --model as trained={packaged} --model window lifted={packaged}:0"
    assert joined == f"../../tools/bench/joined_strings.py {measured} {models}"
    (tmp_path / "full").mkdir()
    *_, again = calls(script, *options, "--full-model", str(tmp_path / "full"), "--long-seconds", "2")
    assert again.endswith(f" --model full={tmp_path / 'full'}") and "--seconds 2 --between" in again


def test_the_commands_of_the_readme_follow_each_other(tmp_path: Path) -> None:
    script = copy_recipe("flow_of_time", tmp_path)
    for folder in ("digits/exp/ctc", "digits/exp/speech_reallm", "digits/exp.full/speech_reallm"):
        (tmp_path / "egs" / folder).mkdir(parents=True)
    text = (RECIPE / "README.md").read_text().replace("\\\n", "")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("    egs/flow_of_time/run.sh ")]
    assert len(commands) == 2
    for command in commands:
        done = run(script, *command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (script.parent / "exp.long/.done/long").exists() and not (script.parent / "exp.long/.done/report").exists()
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert last.endswith("window lifted=egs/digits/exp/speech_reallm:0 --model full=egs/digits/exp.full/speech_reallm")


def test_what_a_user_did_wrong_is_one_line(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        call(monkeypatch, local / "clock.py", "run", tmp_path, "--out", tmp_path / "run.json")
    assert (refused.value.code, capsys.readouterr().err) == (2, f"error: no configuration {tmp_path / 'config.yaml'}: train first\n")


def test_the_clock_has_no_speech_in_it() -> None:
    parts = "reallm.decoders.llama, reallm.interleavers.blank, reallm.searchers.greedy, reallm.training.settings"  # of its configuration
    code = f"import sys; sys.path.insert(0, {str(CLOCK.parent)!r}); import clock, {parts}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    speech = ("reallm.frontends", "reallm.encoders", "reallm.adapters", "reallm.aligners", "reallm.tokenizers", "reallm.systems.")
    speech += ("reallm.data.", "reallm.streaming.recognizer", "soundfile", "torchaudio", "speechbrain", "lhotse")
    found = {name for name in loaded.stdout.split() if name.startswith(speech)}
    general = {"reallm.systems.reallm", "reallm.data.files", "reallm.data.record"}
    assert found == general, "the general model, files that are whole or not there, and what the commit's module reads"


def test_a_clocks_errors_are_counted_as_defined(local: Path) -> None:
    kept = runpy.run_path(str(local / "report_clock.py"))["kept"]
    right = {"k": 4, "ticks": [4, 8, 12]}
    assert kept(right, 15) == (3, 3, None, 0)
    assert kept(right, 16) == (4, 3, 16, 0), "the fourth is missing"
    assert kept({"k": 4, "ticks": [4, 9, 13]}, 13) == (3, 3, 9, 1), "late once, right since"
    assert kept({"k": 4, "ticks": []}, 9) == (2, 0, 4, None)


def test_a_word_ends_in_the_period_that_its_token_is_due_in(local: Path) -> None:
    names = runpy.run_path(str(local / "emission_times.py"))
    clock = names["Clock"](8000, 640, 0)
    assert [clock.period_of(end) for end in (0.0, 0.08, 0.080125, 0.16, 0.24)] == [1, 1, 2, 2, 3]
    assert [names["speed_of"](name) for name in ("test-1", "test-1_sp0.7", "a_sp1.25")] == [1.0, 0.7, 1.25]
    assert math.isclose(clock.period_ms, 80)


def test_an_interval_too_long_to_be_shown_lies_at_the_edge_as_a_triangle(local: Path) -> None:
    picture = runpy.run_path(str(local / "report_clock.py"))["interval_picture"]
    kept = {2: [2, 4, 6, 8], 3: [8], 4: []}
    streams = [{"k": k, "prompt": "told", "trained": True, "ticks": ticks} for k, ticks in kept.items()]
    figure = picture({"tiny": {"trained_inputs": 12, "inputs": 12, "streams": streams}}, 1)
    places = [tuple(place) for points in figure.axes[0].collections for place in points.get_offsets().tolist()]
    assert places == [(2, 3), (3, 10), (4, 10)], "of mean intervals of 3 and 12, and none, up to 10"
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "more than 10, or no tick"
