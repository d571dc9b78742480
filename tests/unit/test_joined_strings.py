"""tools/bench/joined_strings.py on strings of levels: its streams, its errors, and that a window's cost does not grow."""

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reallm.data.cuts import write_cuts
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut

SCRIPT = Path(__file__).parents[2] / "tools/bench/joined_strings.py"


def test_strings_are_joined_to_a_length_with_what_lies_between_them() -> None:
    names = runpy.run_path(str(SCRIPT))
    strings = [(np.full(8000, 0.5, dtype=np.float32), word) for word in ("one", "two", "three")]
    streams = list(names["joined"](strings, 8000, 2.4, "silence", 0.5))
    assert [(text, len(samples)) for text, samples, _ in streams] == [("one two", 20000), ("three", 8000)]
    loudness = {
        kind: float(np.abs(names["between"](kind, 1.0, 8000, np.random.default_rng(0))).max()) for kind in ("silence", "tones", "noise")
    }
    assert loudness["silence"] < 0.001 < 0.05 < loudness["tones"] < 0.2 and 0.1 < loudness["noise"] < 0.3


def test_the_cost_of_a_window_is_the_same_for_any_length_and_that_of_full_attention_grows() -> None:
    from reallm.systems.speech_reallm import SpeechReaLLM

    names = runpy.run_path(str(SCRIPT))
    system = SpeechReaLLM.tiny().eval()
    costs = {}
    for window in (16, 0):
        for seconds in (5, 50):
            names["attend"](system, window, seconds)
            costs[window, seconds] = names["cost"](system)
    assert costs[16, 5] == costs[16, 50]
    assert all(long > short for short, long in zip(costs[0, 5], costs[0, 50], strict=True))


def test_a_model_without_attention_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cuts([make_cut(tmp_path, number) for number in range(2)], tmp_path / "test.jsonl.gz")
    with registered_level_system():
        options = [tmp_path / "test.jsonl.gz", "--out", tmp_path / "out", "--model", f"levels={write_level_bundle(tmp_path / 'bundle')}"]
        monkeypatch.setattr(sys, "argv", [str(part) for part in ("joined_strings.py", *options)])
        with pytest.raises(SystemExit) as refused:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert refused.value.code == 2
        assert re.fullmatch(r"error: a .* has no decoder that attends: take a Speech ReaLLM with one\n", capsys.readouterr().err)
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--if-they-attend"])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    said = r"levels is left out: a .* has no decoder that attends: [^\n]*\nnothing is measured: no model attends\n"
    assert re.fullmatch(said, capsys.readouterr().out) and not (tmp_path / "out").exists()


def test_models_are_named_and_attend_as_they_were_trained_or_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from reallm.bundle import export
    from reallm.decoders.llama import LlamaDecoder
    from reallm.registry import spec_of
    from reallm.systems.speech_reallm import SpeechReaLLM

    names = runpy.run_path(str(SCRIPT))
    tiny = SpeechReaLLM.tiny()
    full = LlamaDecoder(**{**spec_of(tiny.decoder).kwargs, "window": 0, "capacity": 32})
    card = {"training_data": "none", "license": "CC0"}
    export(tiny.eval(), tmp_path / "short:1", card)
    export(SpeechReaLLM(**{**spec_of(tiny).kwargs, "decoder": full}).eval(), tmp_path / "full", card)
    known: dict[Path, object] = {}
    short, lifted, whole = (
        names["read_model"](asked.replace("AT", str(tmp_path)), known)
        for asked in ("short=AT/short:1:16", "lifted=AT/short:1:0", "f=AT/full")
    )
    assert (short.name, short.window, short.attention) == ("short", 16, "window 16")
    assert (lifted.window, lifted.attention, whole.attention) == (0, "full (trained with window 16)", "full")
    assert lifted.system is short.system and len(known) == 2
    asked = [f"{name}={tmp_path}/{place}" for name, place in (("as trained", "full"), ("window lifted", "full:0"), ("short", "short:1:16"))]
    assert [(model.name, model.window) for model in names["models_of"](asked, False)] == [("as trained", 0), ("short", 16)]
    assert capsys.readouterr().out == "window lifted is left out: it attends like 'as trained', full\n"
    for wrong in ("AT/full", "=AT/full", "full="):
        with pytest.raises(names["InputError"], match="write NAME=BUNDLE, or NAME=BUNDLE:WINDOW"):
            names["read_model"](wrong, known)


def test_the_strings_of_a_manifest_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reallm.bundle import export
    from reallm.registry import spec_of
    from reallm.searchers.greedy import GreedySearcher
    from reallm.systems.speech_reallm import SpeechReaLLM

    write_cuts([make_cut(tmp_path, number) for number in range(2)], tmp_path / "test.jsonl.gz")
    quiet = GreedySearcher(blank_penalty=-100.0)  # says nothing: quick
    system = SpeechReaLLM(**{**spec_of(SpeechReaLLM.tiny()).kwargs, "searcher": quiet}).eval()
    export(system, tmp_path / "tiny", {"training_data": "none", "license": "CC0"})
    models = ["--model", f"window={tmp_path / 'tiny'}", "--model", f"lifted={tmp_path / 'tiny'}:0"]
    options = [tmp_path / "test.jsonl.gz", "--out", tmp_path / "out", "--seconds", 1, "--between", 0.1, *models]
    monkeypatch.setattr(sys, "argv", [str(part) for part in ("joined_strings.py", *options)])
    names = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(names["main"].__globals__, "cost", lambda system: (0.5, 97.0))  # counting takes seconds, and has its own test
    names["main"]()
    written = json.loads((tmp_path / "out/joined.json").read_text())
    assert [(row["model"], row["window"]) for row in written["rows"]] == [("window", 16), ("lifted", 0)] * 4
    text = (tmp_path / "out/joined.md").read_text()
    assert text.startswith(f"2 strings; commit {written['rows'][0]['git']}. ") and "| lifted | full (trained with window 16) |" in text
    assert capsys.readouterr().out.splitlines()[:10] == text.splitlines()[2:]
    goes_on_at_the_next_row(tmp_path / "out/joined.json", names, monkeypatch, capsys)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--model", f"lifted={tmp_path / 'tiny'}:8"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        names["main"]()
    assert capsys.readouterr().err == "error: --model: two of window, lifted, lifted have one name\n"


def goes_on_at_the_next_row(file: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in ``file`` after a run that was killed at its second row, and what the next run measures."""
    before = json.loads(file.read_text())["rows"]
    changed = [{**before[0], "bundle": "of another model"}, {**before[5], "wer": 77.0}]
    file.write_text(json.dumps({"rows": changed}))
    measured: list[str] = []
    identity = ("sweep", "between", "gap_s", "at_least_s", "strings", "model", "attention", "bundle", "git")

    def measure(model: Any, streams: Any) -> dict[str, Any]:
        measured.append(model.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return {name: value for name, value in before[0].items() if name not in identity}

    monkeypatch.setitem(names["main"].__globals__, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        names["main"]()
    killed = json.loads(file.read_text())["rows"]
    assert [row["bundle"] == before[0]["bundle"] for row in killed] == [True, True], "the row of another model is made anew"
    assert [row["wer"] for row in killed] == [before[0]["wer"], 77.0], "the row that comes later is kept"
    assert capsys.readouterr().out.startswith(f"1 of 8 rows are in {file}\n")
    names["main"]()
    assert capsys.readouterr().out.startswith(f"2 of 8 rows are in {file}\n") and len(measured) == 2 + 6
    assert [row["wer"] == 77.0 for row in json.loads(file.read_text())["rows"]] == [number == 5 for number in range(8)]


def test_full_attention_that_has_too_little_room_gets_more_and_says_so_and_no_other_error_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reallm.errors import CapacityError, InputError
    from reallm.systems.speech_reallm import SpeechReaLLM

    names = runpy.run_path(str(SCRIPT))
    system, rooms = SpeechReaLLM.tiny().eval(), []
    streams = [("one", np.zeros(8000, dtype=np.float32), 8000)]

    def heard(system: Any, streams: Any) -> Any:
        rooms.append(system.decoder.capacity)
        raise (CapacityError if "full" in wrong else InputError)(wrong)

    monkeypatch.setitem(names["measure"].__globals__, "heard", heard)
    for wrong, window, tried in (("it is full", 0, 3), ("no such file", 0, 1), ("it is full", 16, 1)):
        rooms.clear()
        with pytest.raises(InputError, match=wrong):
            names["measure"](names["Model"]("lifted", system, "", 16, window), streams)
        assert len(rooms) == tried and rooms == sorted(rooms)
        said = capsys.readouterr().out
        assert said.count("lifted: it is full. It is decoded again, with room for more than ") == tried - 1
    system.decoder.window, system.decoder.capacity = 0, 10
    with pytest.raises(CapacityError, match="utterance 'one': the stream ends after "):
        monkeypatch.undo()
        names["heard"](system, [("one", np.zeros(80000, dtype=np.float32), 8000)])


def test_rows_become_a_table_and_a_picture(tmp_path: Path) -> None:
    names = runpy.run_path(str(SCRIPT))
    row = {
        "streams": 1,
        "words": 10,
        "wer": 30.0,
        "insertions": 1,
        "deletions": 2,
        "substitutions": 0,
        "state_mb": 0.5,
        "mflop_per_s": 97.0,
    }
    kinds = [("length", "0.5 s of silence", 5.0), ("length", "0.5 s of silence", 50.0), ("between", "0.5 s of silence", 9.0)]
    kinds += [("between", "60 s of tones", 130.0)]
    models = [("window", "window 64"), ("lifted", "full (trained with window 64)"), ("full", "full")]
    rows = [{**row, "sweep": w, "between": b, "longest_s": s, "model": m, "attention": a} for w, b, s in kinds for m, a in models]
    assert "| 60 s of tones | full | full | 1 | 130 | 10 | 30.00 | 1 / 2 / 0 | 0.50 | 97 |" in [
        names["line_of"](row) for row in json.loads(json.dumps(rows))
    ]
    picture = names["picture"](rows)
    lines, bars = picture.axes[0].lines, picture.axes[3].patches
    assert [list(line.get_xdata()) for line in lines] == [[5.0, 50.0]] * 3 and len(bars) == 3 * 3 * 2, (
        "also with between as long as a pause"
    )
    picture.savefig(tmp_path / "joined.png")
    assert (tmp_path / "joined.png").stat().st_size > 10000
