"""tools/results_table.py --against, and tools/delay_curve.py."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.dummies.hypotheses import write_decoding

TOOLS = Path(__file__).parents[2] / "tools"
COUNTS = {"wer_ci95": [0, 1], "errors": 1, "words": 2, "insertions": 0, "deletions": 0, "substitutions": 1, "rtf": 0.1}


def write_result(folder: Path, system: str, wer: float, delay: float | None, right: bool = True, **results: object) -> None:
    """A decoding of two words, the second of which is right or not."""
    delays = None if delay is None else {"mean": delay, "p50": 1, "p90": 1, "p99": 1}
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
        return SimpleNamespace(failed=bool(code), stdout=printed.out, stderr=printed.err + (code if isinstance(code, str) else ""))

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
    assert not run("results_table.py", "--against", "aed 3.00 M", tmp_path).failed
    (tmp_path / "2/hyps.jsonl").unlink()
    missing = run("results_table.py", "--against", "speech_reallm", tmp_path)
    assert missing.failed and missing.stderr.startswith("error: no hypotheses")


def test_error_rates_at_the_delays_of_one_system(tmp_path: Path, run: Callable[..., SimpleNamespace]) -> None:
    for number, (delay, wer) in enumerate([(200, 30.0), (400, 10.0)]):
        write_result(tmp_path / f"s{number}", "speech_reallm", wer, delay)
    for seed in (1, 2):
        for number, (delay, wer) in enumerate([(300, 20.0), (500, 18.0)]):
            write_result(tmp_path / f"c{seed}{number}", "ctc", wer + seed, delay, seed=seed)
    write_result(tmp_path / "a", "aed", 12.0, 900, times_known=False)
    write_result(tmp_path / "silent", "ctc", 100.0, None)
    picture = tmp_path / "curves/delay.png"
    done = run("delay_curve.py", tmp_path, "--picture", picture)
    assert not done.failed, done.stderr
    assert "silent/results.json has no emission delays and is left out" in done.stdout
    assert "| system | 200 | 400 | best (its delay) |" in done.stdout
    assert "| speech_reallm 1.00 M | 30.00 | 10.00 | 10.00 (400) |" in done.stdout
    assert "| ctc 1.00 M | – | 20.50 | 19.50 (500) |" in done.stdout and "| aed 1.00 M | – | – | 12.00 (900) |" in done.stdout
    assert picture.stat().st_size > 1000
    assert "| ctc 1.00 M | 20.50 | 19.50 | 19.50 (500) |" in run("delay_curve.py", tmp_path, "--at", 400, "--at", 1000).stdout


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
    write_result(tmp_path / "2", "ctc", 0.0, 100.0, **changes)
    done = run("delay_curve.py", tmp_path, *options)
    assert done.failed and message in done.stderr
