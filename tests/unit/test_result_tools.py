"""tools/results_table.py, tools/delay_curve.py and tools/chance_wer.py."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reallm.data.cuts import write_cuts
from tests.dummies.data import silent_cut
from tests.dummies.hypotheses import write_decoding

TOOLS = Path(__file__).parents[2] / "tools"
COUNTS = {"wer_ci95": [0, 1], "errors": 1, "words": 2, "insertions": 0, "deletions": 0, "substitutions": 1, "rtf": 0.1}


def write_result(folder: Path, system: str, wer: float, delay_ms: float | None, right: bool = True, **results: object) -> None:
    """A decoding of two words, the second of which is right or not."""
    delays = None if delay_ms is None else {"mean": delay_ms, "p50": 1, "p90": 1, "p99": 1}
    facts = {
        "system": system,
        "split": "test",
        "parameters": 1e6,
        "corpus": {"kind": "real"},
        "wer": wer,
        "emission_delay_ms": delays,
        "seed": 1,
    }
    write_decoding(folder, {"a": ("one", "one"), "b": ("two", "two" if right else "ten")}, **{**COUNTS, **facts, **results})


class NoToolkit:
    """Of a Python without it."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.partition(".")[0] == "reallm":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """A tool, in this process: another one would import torch again."""

    def go(tool: str, *arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        monkeypatch.syspath_prepend(TOOLS)
        capsys.readouterr()
        code: object = 0
        try:
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert code in (0, None) or (code == 2 and len(printed.err.splitlines()) == 1 and printed.err.startswith("error: ")), printed.err
        return SimpleNamespace(failed=bool(code), stdout=printed.out, stderr=printed.err)

    return go


def test_differences_to_one_system(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_result(tmp_path / "1", "speech_reallm", 0.0, 100.0)
    write_result(tmp_path / "2", "ctc", 50.0, 100.0, right=False)
    write_result(tmp_path / "3", "ctc", 0.0, 100.0, seed=2)
    write_result(tmp_path / "4", "aed", 0.0, 100.0)
    write_result(tmp_path / "5", "aed", 50.0, 100.0, right=False, parameters=3e6)
    done = run("results_table.py", "--against", "speech_reallm", tmp_path)
    assert not done.failed, done.stderr
    assert "| ctc 1.00 M | test | 2 | +25.00 (+0.00 to +50.00) | 0." in done.stdout
    assert (
        "| aed 1.00 M | test | 1 | +0.00 (+0.00 to +0.00) | 0.500 |" in done.stdout and "| aed 3.00 M | test | 1 | +50.00 (" in done.stdout
    )
    wrong = run("results_table.py", "--against", "aed", tmp_path)
    assert wrong.failed and wrong.stderr.startswith("error: --against 'aed': 2 such systems in test")
    assert wrong.stdout == "", "no half of a table"
    assert not run("results_table.py", "--against", "aed 3.00 M", tmp_path).failed
    (tmp_path / "2/hyps.jsonl").unlink()
    missing = run("results_table.py", "--against", "speech_reallm", tmp_path)
    assert missing.failed and missing.stderr.startswith("error: no hypotheses") and missing.stdout == ""


def test_the_intervals_say_what_is_drawn(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_result(tmp_path / "1", "ctc", 0.0, 100.0, wer_ci95_over="recordings")
    said = run("results_table.py", tmp_path).stdout.splitlines()[-1]
    assert said.startswith(
        "95 %: by bootstrap over the recordings of the test. How much another seed of the training would change is not in it;"
    )


def test_systems_that_were_trained_with_several_delays_are_several(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    for number, (delay, seed, wer) in enumerate([(2, 1, 10.0), (1, 1, 20.0), (1, 2, 30.0)]):
        write_result(tmp_path / str(number), "speech_reallm", wer, 100.0, delay=delay, seed=seed)
    write_result(tmp_path / "ctc", "ctc", 5.0, 100.0)
    done = run("results_table.py", "--mean", "--against", "speech_reallm", tmp_path)
    assert not done.failed, done.stderr
    assert "| speech_reallm 1.00 M delay 1 | test | 25.00 (2 runs) | 20.00 – 30.00 |" in done.stdout
    assert "| speech_reallm 1.00 M delay 2 | test | 10.00 (1 runs) |" in done.stdout and "| ctc 1.00 M | test | 5.00 " in done.stdout
    assert "| speech_reallm 1.00 M delay 1 | test | 2 | " in done.stdout, "compared with what the first place holds"
    assert "speech_reallm 1.00 M delay 2 | test | 1 |" not in done.stdout
    write_result(tmp_path / "any", "speech_reallm", 8.0, 100.0, delay=1, training_delays=[0, 3])
    assert "| speech_reallm 1.00 M delays 0–3 | test | 8.00 " in run("results_table.py", "--mean", tmp_path).stdout


def test_what_would_count_twice_is_refused(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_result(tmp_path / "a/1", "ctc", 0.0, 100.0)
    again = run("results_table.py", tmp_path / "a", tmp_path / "a/1")
    assert again.failed and "a/1/results.json is given twice" in again.stderr
    write_result(tmp_path / "a/2", "ctc", 10.0, 100.0)
    assert not run("results_table.py", tmp_path / "a").failed, "rows alone may be"
    for options in (["--mean"], ["--against", "ctc"]):
        same = run("results_table.py", *options, tmp_path / "a")
        assert same.failed and "are both ctc 1.00 M of seed 1: a mean is over seeds, leave one out" in same.stderr and not same.stdout
    curve = run("delay_curve.py", "--of", "ctc", tmp_path / "a")
    assert curve.failed and "ctc 1.00 M of seed 1, decoded like this, is there already" in curve.stderr
    write_result(tmp_path / "b", "ctc", 10.0, 100.0, manifest="another speaker's")
    assert not run("results_table.py", "--mean", tmp_path / "a/1", tmp_path / "b").failed


@pytest.mark.parametrize("tool", ["results_table.py", "delay_curve.py"])
def test_wrong_input_is_one_line(tool: str, tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_result(tmp_path / "1", "ctc", 0.0, 100.0)
    file = tmp_path / "1/results.json"
    whole = file.read_text()
    for content, message in (
        (whole[:50], f"{file} cannot be read ("),
        ("[]", f"{file} has no system, split, corpus, wer,"),
        (whole.replace('"wer":', '"cer":'), f"{file} has no wer: it is not what `reallm score` writes; run the score stage again"),
        (whole.replace('"kind":', '"sort":'), f"{file} has no kind of corpus"),
    ):
        file.write_text(content)
        assert message in run(tool, tmp_path).stderr
    assert "no results.json in" in run(tool, tmp_path / "none").stderr
    assert "unrecognized arguments: --wrong (see --help)" in run(tool, "--wrong", tmp_path).stderr


@pytest.mark.parametrize("tool", ["results_table.py", "delay_curve.py"])
def test_outside_of_the_environment(
    tool: str, tmp_path: Path, run: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_result(tmp_path / "1", "ctc", 0.0, 100.0)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reallm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoToolkit(), *sys.meta_path])
    options = ["--against", "ctc"] if tool == "results_table.py" else []
    done = run(tool, *options, tmp_path)
    assert done.stderr == "error: no Python package 'reallm' here: activate the environment first (. tools/activate.sh)\n"
    assert not run("results_table.py", "--mean", tmp_path).failed


def test_error_rates_at_the_delays_of_one_system(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    for number, (delay, wer) in enumerate([(200, 30.0), (400, 10.0)]):
        write_result(tmp_path / f"s{number}", "speech_reallm", wer, delay, delay=number, token_period=0.08)
    for seed in (1, 2):
        for chunk, (delay, wer) in enumerate([(300, 20.0), (500, 18.0)], start=1):
            settings = {"encoder.chunk_size": 4 * chunk}
            write_result(tmp_path / f"c{seed}{chunk}", "ctc", wer + seed, delay + seed, seed=seed, settings=settings)
    write_result(tmp_path / "c3", "ctc", 1.0, 150, seed=1, settings={"encoder.chunk_size": 2})
    write_result(tmp_path / "a", "aed", 12.0, 900, times_known=False)
    write_result(tmp_path / "silent", "ctc", 100.0, None)
    picture = tmp_path / "curves/delay.png"
    done = run("delay_curve.py", tmp_path, "--picture", picture)
    assert not done.failed, done.stderr
    assert "silent/results.json has no emission delays and is left out" in done.stdout
    assert "| system | 200 | 400 | best (its delay) |" in done.stdout
    assert "| speech_reallm 1.00 M | 30.00 | 10.00 | 10.00 (400) |" in done.stdout
    assert 'ctc 1.00 M with [{"encoder.chunk_size": 2}, ""] was decoded for 1 of 2 seeds and is left out' in done.stdout
    assert "chosen by the error rates of this very split" in done.stdout
    assert "| 0.08 | speech_reallm 1.00 M | 400 | 10.00 (" in done.stdout
    assert "inside that of" not in done.stdout, "no model of any delay, so nothing is held against it"
    assert "| ctc 1.00 M | – | 20.52 | 19.50 (502) |" in done.stdout and "| aed 1.00 M | – | – | 12.00 (900) |" in done.stdout
    assert picture.stat().st_size > 1000
    assert "| ctc 1.00 M | 20.52 | 19.50 | 19.50 (502) |" in run("delay_curve.py", tmp_path, "--at", 400, "--at", 1000).stdout
    own = run("delay_curve.py", tmp_path, "--of", "ctc").stdout
    assert "| system | 302 | 502 | best" in own, "a column for each chunk, not for each chunk and seed"


def write_delays(folder: Path, **facts: object) -> None:
    """Models of delay 0 and 2, and one of 0 to 3 at both, which is as good as the first alone."""
    for periods, wer in ((0, 1.0), (2, 3.0)):
        interval = {"wer_ci95": [wer - 0.5, wer + 0.5], **facts}
        write_result(folder / f"one{periods}", "speech_reallm", wer, 100 + 70 * periods, delay=periods, **interval)
        chosen = {"delay": 0, "training_delays": [0, 3], "settings": {"compiled": True} | ({"delay": 0.08 * periods} if periods else {})}
        write_result(folder / f"any{periods}", "speech_reallm", 1.2, 110 + 80 * periods, **{**interval, **chosen})


def test_a_model_of_any_delay_against_models_of_one(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_delays(tmp_path / "known", token_period=0.08)
    done = run("delay_curve.py", tmp_path / "known", "--picture", tmp_path / "curve.png")
    assert not done.failed, done.stderr
    assert "| 0 | speech_reallm 1.00 M | 100 | 1.00 (0.50–1.50) | – |" in done.stdout
    assert "| 0 | speech_reallm 1.00 M of any delay | 110 | 1.20 (0.50–1.50) | yes |" in done.stdout, (
        "by default, and it has no choice said"
    )
    assert "| 0.16 | speech_reallm 1.00 M | 240 | 3.00 (2.50–3.50) | – |" in done.stdout, "a longer delay that does not pay is there"
    assert "| 0.16 | speech_reallm 1.00 M of any delay | 270 | 1.20 (2.50–3.50) | no |" in done.stdout
    assert "inside the interval of a model trained for one in 1 of 2 comparisons" in done.stdout
    write_delays(tmp_path / "unknown")
    said = run("delay_curve.py", tmp_path / "unknown").stdout
    assert "| 0.16 | speech_reallm 1.00 M of any delay | 270 | 1.20 (2.50–3.50) | none was trained for it |" in said
    assert run("delay_curve.py", tmp_path / "unknown", "--period", 80).stdout == run("delay_curve.py", tmp_path / "known").stdout


def test_all_points_are_drawn_with_their_intervals(
    tmp_path: Path, run: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    from reallm.metrics import plots

    drawn: list[object] = []
    monkeypatch.setattr(plots, "delay_curves", lambda *given: drawn.append(given) or Figure())
    write_delays(tmp_path / "known", token_period=0.08)
    write_result(tmp_path / "known/aed", "aed", 12.0, 900, times_known=False)
    run("delay_curve.py", tmp_path / "known", "--picture", tmp_path / "curve.png")
    ((curves, lines, title),) = drawn  # type: ignore[misc]
    assert curves["speech_reallm 1.00 M"] == [(100, 1.0, 0.5, 1.5), (240, 3.0, 2.5, 3.5)]
    assert curves["speech_reallm 1.00 M of any delay"] == [(110, 1.2, 0.5, 1.5), (270, 1.2, 2.5, 3.5)]
    assert (lines, title) == ({"aed 1.00 M": 12.0}, "test")


def write_way(folder: Path, system: str, delay_ms: float, errors: str, seed: int = 1, **results: object) -> None:
    """A decoding of "one two", "six" and "ten", by three speakers, in which each utterance has so many errors."""
    said = {"a": "one two", "b": "six", "c": "ten"}
    texts = {name: (text, " ".join(text.split()[int(wrong) :])) for (name, text), wrong in zip(said.items(), errors, strict=True)}
    facts = {
        "system": system,
        "split": "test",
        "parameters": 1e6,
        "corpus": {"kind": "real"},
        "seed": seed,
        "wer": 25.0 * sum(map(int, errors)),
    }
    delays = {"emission_delay_ms": {"mean": delay_ms, "p50": 1, "p90": 1, "p99": 1}, "settings": {"encoder.chunk_size": delay_ms // 100}}
    write_decoding(folder, texts, **{**COUNTS, **facts, **delays, **results})


def write_ways(folder: Path) -> None:
    """Two decodings of the Speech ReaLLM, and two of CTC with two seeds."""
    write_way(folder / "s1", "speech_reallm", 200, "101")
    write_way(folder / "s2", "speech_reallm", 400, "100")
    for seed, (early, late) in enumerate([("200", "000"), ("210", "010")], start=1):
        write_way(folder / f"c{seed}1", "ctc", 90 + 10 * seed, early, seed, settings={"encoder.chunk_size": 1})
        write_way(folder / f"c{seed}3", "ctc", 290 + 10 * seed, late, seed, settings={"encoder.chunk_size": 3})


def test_differences_at_the_same_delay(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_ways(tmp_path)
    done = run("delay_curve.py", tmp_path, "--against", "speech_reallm", "--at", 104, "--at", 255, "--at", 999)
    assert not done.failed, done.stderr
    # CTC waits 105 and 305 ms with 2, 0.5, 0 and 0, 0.5, 0 errors; at 255 that is 0.5, 0.5, 0, against 1, 0, 0.725.
    assert "| WER % − that of speech_reallm 1.00 M, points (95 %) | 104 | 255 | 999 |\n|---|---|---|---|\n" in done.stdout
    assert "| ctc 1.00 M | – | -18.12 (-72.50 to +50.00) | -12.50 (-50.00 to +50.00) |" in done.stdout
    assert "| ctc 1.00 M | – | 25.00 | 12.50 |" in done.stdout and "| speech_reallm 1.00 M | – | 43.12 | 25.00 |" in done.stdout
    assert "by paired bootstrap over the utterances of the test" in done.stdout and "words of one speaker are alike" in done.stdout
    assert "WER % − that of" not in run("delay_curve.py", tmp_path).stdout


def test_at_a_decoding_the_difference_is_that_of_the_table(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_way(tmp_path / "s1", "speech_reallm", 200, "101")
    write_way(tmp_path / "c1", "ctc", 200, "010")
    table = run("results_table.py", tmp_path, "--against", "speech_reallm").stdout
    found = next(line.split(" | ")[3] for line in table.splitlines() if line.startswith("| ctc 1.00 M | test | 1 |"))
    write_way(tmp_path / "s2", "speech_reallm", 400, "100")
    write_way(tmp_path / "c2", "ctc", 150, "210")
    curve = run("delay_curve.py", tmp_path, "--against", "speech_reallm").stdout
    assert f"| ctc 1.00 M | {found} | " in curve and found == "-25.00 (-100.00 to +100.00)"


def test_speakers_are_drawn_where_asked(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    cuts = [silent_cut(tmp_path, name, 0.5, text) for name, text in (("a", "one two"), ("b", "six"), ("c", "ten"))]
    cuts[2].supervisions[0].speaker = "bo"
    write_cuts(cuts, tmp_path / "said.jsonl.gz")
    for folder, system, errors in (("s", "speech_reallm", "000"), ("c", "ctc", "100")):
        write_way(tmp_path / folder, system, 200, errors, manifest=str(tmp_path / "said.jsonl.gz"))
    for tool, row in (("results_table.py", "| ctc 1.00 M | test | 1 | "), ("delay_curve.py", "| ctc 1.00 M | ")):
        options = tmp_path, "--against", "speech_reallm"
        # One error in two words of a, or in the three of its speaker.
        assert f"{row}+25.00 (+0.00 to +50.00) |" in run(tool, *options).stdout
        by_speaker = run(tool, *options, "--by", "speaker").stdout
        assert f"{row}+25.00 (+0.00 to +33.33) |" in by_speaker and "speakers" in by_speaker.splitlines()[-1]
        assert "nor that the words of one speaker are alike" not in by_speaker
        alone = run(tool, tmp_path, "--by", "speaker")
        assert alone.failed and "--by speaker is what --against draws: name a system with --against" in alone.stderr
    (tmp_path / "said.jsonl.gz").unlink()
    for tool in ("results_table.py", "delay_curve.py"):
        gone = run(tool, *options, "--by", "speaker")
        assert gone.failed and "speakers are drawn, which " in gone.stderr and not gone.stdout


def test_what_cannot_be_compared_at_a_delay(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_ways(tmp_path / "ways")
    at = run("delay_curve.py", tmp_path / "ways", "--against", "aed")
    assert at.failed and "--against 'aed': no such systems with delays, which are of " in at.stderr
    write_result(tmp_path / "other", "transducer", 0.0, 200.0)
    other = run("delay_curve.py", tmp_path, "--against", "speech_reallm")
    assert other.failed and other.stdout == "", "no half of a table"
    assert "transducer 1.00 M and speech_reallm 1.00 M: what was said is not the same in both for 3 utterances" in other.stderr
    (tmp_path / "ways/s1/hyps.jsonl").unlink()
    assert (
        "error: ctc 1.00 M and speech_reallm 1.00 M: no hypotheses" in run("delay_curve.py", tmp_path, "--against", "speech_reallm").stderr
    )


def test_a_model_of_any_delay_is_compared_by_its_whole_name(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    write_delays(tmp_path, token_period=0.08)
    plain, chosen = "speech_reallm 1.00 M", "speech_reallm 1.00 M of any delay"
    assert f"\n| WER % − that of {plain}, points" in run("delay_curve.py", tmp_path, "--against", "speech_reallm").stdout
    assert f"\n| WER % − that of {chosen}, points" in run("delay_curve.py", tmp_path, "--against", chosen).stdout
    write_result(tmp_path / "large", "speech_reallm", 0.0, 200.0, parameters=2e6)
    two = run("delay_curve.py", tmp_path, "--against", "speech_reallm")
    assert two.failed and "--against 'speech_reallm': 2 such systems with delays" in two.stderr


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"split": "dev"}, (), "these results are of dev, test: give those of one split"),
        ({"corpus": {"kind": "SYNTHETIC"}}, (), "give each kind a table of its own"),
        ({}, ("--of", "aed"), "--of aed: no delays of such a system among ctc 1.00 M"),
    ],
)
def test_what_has_no_curve(
    changes: dict[str, object], options: tuple[str, ...], message: str, tmp_path: Path, run: Callable[..., SimpleNamespace]
) -> None:
    write_result(tmp_path / "1", "ctc", 0.0, 100.0)
    write_result(tmp_path / "2", "ctc", 0.0, 100.0, seed=2, **changes)
    done = run("delay_curve.py", tmp_path, *options)
    assert done.failed and message in done.stderr


def test_chance_is_against_the_nearest_reference_in_length(run: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    texts = {
        "a": ("one two", "one two"),
        "b": ("six", "six"),
        "c": ("three four two", "three four two"),
        "d": ("One two.", "one two"),  # as a, once normalized: no other text
        "e": ("", "one"),  # nothing to be right about
        "f": ("one two three four five six", "one two three four five six"),
    }
    facts = {**COUNTS, "system": "s", "split": "test", "parameters": 1e6, "corpus": {"kind": "real"}, "wer": 0.0}
    write_decoding(tmp_path / "x", texts, **{**facts, "normalization": "librispeech"})
    # b against a: 2 errors of 2. a and d against c, as near as b and longer: 2 of 3 ("two" is right). c against d: 2 of 2 ("two" is right;
    # three, four: one inserted, one for "one"). f against c, none is longer: "three four" are right, 4 more words, "two" is not said.
    errors, words = 2 + 2 + 2 + 2 + 4, 2 + 3 + 3 + 2 + 3
    table = run("chance_wer.py", tmp_path / "x").stdout.splitlines()
    assert table[-1] == f"| {tmp_path / 'x'} | 0.00 | {100 * errors / words:.2f} |"


def test_chance_needs_texts_that_differ(run: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    facts = {**COUNTS, "system": "s", "split": "test", "parameters": 1e6, "corpus": {"kind": "real"}, "wer": 0.0}
    write_decoding(tmp_path / "same", {"a": ("one", "one"), "b": ("one", "")}, **facts)
    assert "all of its 2 references are the same text" in run("chance_wer.py", tmp_path / "same").stderr
    write_decoding(tmp_path / "silent", {"a": ("", "one")}, **facts)
    assert "none of its references has a word" in run("chance_wer.py", tmp_path / "silent").stderr
    write_decoding(tmp_path / "unknown", {"a": ("one", "one")}, **facts)
    hyps = tmp_path / "unknown" / "hyps.jsonl"
    hyps.write_text(json.dumps({key: value for key, value in json.loads(hyps.read_text()).items() if key != "ref"}) + "\n")
    assert "utterance 'a' has no reference: decode again" in run("chance_wer.py", tmp_path / "unknown").stderr
    assert "no results.json" in run("chance_wer.py", tmp_path / "nothing").stderr
