"""The command: quick help, one-line errors, exit codes."""

import errno
import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from reallm.cli import VERBS, load_verb, main
from reallm.data.files import atomic_write


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "reallm.cli", *arguments], capture_output=True, text=True)


def test_help_answers_within_a_second_and_lists_every_verb() -> None:
    assert min(_timed_help() for _ in range(3)) < 1.0
    help_text = run("--help").stdout
    for verb, summary in VERBS.items():
        assert f"{verb} " in help_text
        assert summary in help_text


def _timed_help() -> float:
    """Seconds of processor time: those of the clock depend on what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_heavy_imports(verb: str) -> None:
    program = f"""
import sys
from reallm.cli import main
try:
    main(["{verb}", "--help"])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in ("torch", "lhotse", "speechbrain", "numpy", "matplotlib", "jiwer") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: reallm " + verb in done.stdout


def test_every_verb_loads_under_its_name() -> None:
    for verb in VERBS:
        assert load_verb(verb).name == verb


def test_input_errors_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["transcrbe"], "unknown verb 'transcrbe' (did you mean 'transcribe'?)"),
        (["transcribe"], "name audio files or --mic"),
        (["score", "nothing.jsonl", "--cuts", "no", "--out", "no"], "no hypotheses nothing.jsonl"),
        (["report", "/nowhere"], "/nowhere"),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("reallm: error: ")
        assert message in error
        assert error.count("\n") == 1


def test_what_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import reallm.cli.score

    (tmp_path / "file").write_text("")

    def no_folder() -> None:
        with atomic_write(tmp_path / "file" / "results.json") as file:
            file.write("{}")

    def full() -> None:
        with atomic_write(tmp_path / "results.json"):
            raise OSError(errno.ENOSPC, "No space left on device")

    for write, message in (
        (no_folder, f"{tmp_path / 'file'}: File exists: name another place"),
        (full, f"{tmp_path / 'results.json'}: No space left on device: free some space and start the same command again"),
    ):
        monkeypatch.setattr(reallm.cli.score, "score", write)
        with pytest.raises(SystemExit) as end:
            main(["score"])
        assert (end.value.code, capsys.readouterr().err) == (2, f"reallm: error: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_package_of_an_extra_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import reallm.cli.score

    for module, message in (
        ("lhotse", "this needs lhotse, which is not installed: pip install '.[train]' in your clone of reallm"),
        ("ruamel", "this needs ruamel.yaml, which is not installed: pip install '.[train]' in your clone of reallm"),
        ("espeakng_loader", "this needs espeakng-loader, which is not installed: pip install '.[synth]' in your clone of reallm"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setattr(reallm.cli.score, "score", lambda module=module: importlib.import_module(module))
        with pytest.raises(SystemExit) as end:
            main(["score"])
        assert (end.value.code, capsys.readouterr().err) == (2, f"reallm: error: {message}\n")
    monkeypatch.setattr(reallm.cli.score, "score", lambda: importlib.import_module("reallm.score_of_a_bug"))
    with pytest.raises(ModuleNotFoundError, match="score_of_a_bug"):
        main(["score"])


def test_a_terminal_that_cannot_show_a_character_shows_its_number(tmp_path: Path) -> None:
    program = """
import reallm.cli, reallm.cli.score
def talk():
    print("nul, één")
reallm.cli.score.score = talk
reallm.cli.main(["score"])
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (0, rb"nul, \xe9\xe9n" + b"\n")


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import reallm.cli.score

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(reallm.cli.score, "score", lambda: broken())
    with pytest.raises(RuntimeError, match="a bug"):
        main(["score"])


def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import reallm.cli.score

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reallm.cli.score, "score", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["score"])
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "reallm: interrupted"


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = """
import reallm.cli, reallm.cli.score
def talk():
    for _ in range(100000):
        print("a line that nobody reads")
reallm.cli.score.score = talk
reallm.cli.main(["score"])
"""
    done = subprocess.run(["bash", "-c", f"{sys.executable} -c '{program}' | head -1"], capture_output=True, text=True)
    assert done.stdout == "a line that nobody reads\n"
    assert done.stderr == ""


def test_version() -> None:
    from reallm import __version__

    assert run("--version").stdout == f"reallm {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["transcribe", "--modle", "x"], "No such option: --modle (Possible options: --model); see reallm transcribe --help"),
        (["decode"], "Missing argument 'EXP_OR_BUNDLE'; see reallm decode --help"),
        (["data", "digits", "--out", "x", "--train-strings", "0"], "greater than or equal to 1; see reallm data digits --help"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], line: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("reallm: error: ") and done.stderr.endswith(line + "\n") and done.stderr.count("\n") == 1
