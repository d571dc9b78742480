"""The shell tools: options, stages, finding Python, and k2 from a page of wheels."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"

RECIPE = """#!/usr/bin/env bash
# A recipe.
#
# More about it.
set -euo pipefail

exp=out             # where to write
stage=1             # first stage
stop_stage=3        # last stage
num_layers=4
systems=a           # what is trained
name=               # of somebody
force=false         # again
. "{tools}/parse_options.sh" "$@"
hidden=1

. "{tools}/stages.sh"
begin data train score
settings num_layers
reopens train systems

if stage data; then
  echo "data of $name with $num_layers" >>"$exp/log"
  finish
fi
if stage train needs data; then
  echo begun >"$exp/train.begun"
  [ "$name" != slow ] || sleep 60
  [ "$name" != bad ] || false
  [ "$name" != wrong ] || (echo "reallm: error: name 'wrong': give another" >&2 && exit 2)
  echo "train${{systems#a}}" >>"$exp/log"
  finish
fi
if stage score needs data train; then
  echo score >>"$exp/log"
  finish
fi
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    script = tmp_path / "recipe" / "run.sh"
    script.parent.mkdir()
    script.write_text(RECIPE.format(tools=TOOLS))
    return script


def run(script: Path, *options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", str(script), *options], cwd=cwd or script.parent, capture_output=True, text=True)


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a user's mistake."""
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1
    return done.stderr


def log(recipe: Path) -> list[str]:
    return (recipe.parent / "out/log").read_text().splitlines()


def test_options_take_values_flags_and_configurations(recipe: Path, tmp_path: Path) -> None:
    (recipe.parent / "conf.sh").write_text("name=configured\nnum_layers=7\n")
    # The configuration is found from the recipe's folder too, and the command line wins wherever it stands.
    done = run(recipe, "--name=given", "--config", "conf.sh", "--exp", "other place", "--force", "--stop-stage", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other place/log").read_text() == "data of given with 7\n"


def test_more_options_than_a_pipe_holds_are_known_under_pipefail(recipe: Path) -> None:
    """A reader that stops at the first match ends its writer by a signal, now and then: here it would each time."""
    many = "\n".join(f"an_option_of_some_length_{number}=" for number in range(5000))
    recipe.write_text(recipe.read_text().replace("name=", f"name=\n{many}\nothername=", 1))
    assert "pipefail" in recipe.read_text()
    done = run(recipe, "--name", "given", "--stop-stage", "data")
    assert done.returncode == 0, done.stderr


def test_help_shows_the_header_and_the_options(recipe: Path) -> None:
    done = run(recipe, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("A recipe.\n\nMore about it.\n")
    assert "--num-layers" in done.stdout and "where to write (default: out)" in done.stdout
    assert "hidden" not in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-layer", "3"], "unknown option '--num-layer' (did you mean --num-layers?)"),
        (["--hidden", "3"], "unknown option '--hidden'"),
        (["--num-layers"], "--num-layers needs a value"),
        (["--num-layers", "many"], "--num-layers needs a whole number, not 'many'"),
        (["--force=maybe"], "--force needs true or false, not 'maybe'"),
        (["data"], "'data' is not an option"),
        (["--config", "nowhere.sh"], "no configuration file 'nowhere.sh'"),
        (["--config", "bad.sh"], "sets 'num_layer', which is no option (did you mean --num-layers?)"),
        (["--config", "export.sh"], "export.sh has lines that are not NAME=VALUE, such as line 2"),
        (["--stage", "trian"], "no stage 'trian': 1 to 3, or one of data train score"),
        (["--stage", "3", "--stop-stage", "train"], "--stage 3 comes after --stop-stage train"),
        (["--stage", "score"], "stage 3 (score) needs stage 1 (data), which is not done in 'out': run it with --stage 1"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(recipe: Path, options: list[str], message: str) -> None:
    (recipe.parent / "bad.sh").write_text("num_layer=3\n")
    (recipe.parent / "export.sh").write_text("# of mine\nexport num_layers=3\n")
    assert message in error(run(recipe, *options))
    assert not (recipe.parent / "out/log").exists()


def test_done_stages_are_skipped_and_a_forced_one_makes_later_ones_stale(recipe: Path) -> None:
    assert run(recipe).returncode == 0
    again = run(recipe)
    assert again.stdout.count("done before") == 3
    assert log(recipe) == ["data of  with 4", "train", "score"]
    assert run(recipe, "--stage", "train", "--stop-stage", "2", "--force").returncode == 0
    assert run(recipe).returncode == 0
    assert log(recipe)[3:] == ["train", "score"]


def test_settings_may_not_change_under_an_experiment(recipe: Path) -> None:
    assert run(recipe).returncode == 0
    assert "was made with num_layers=4, not num_layers=5" in error(run(recipe, "--num-layers", "5"))
    assert "was made with num_layers=4, not num_layers=5: name another --exp" in error(run(recipe, "--num-layers", "5", "--force"))
    assert run(recipe, "--num-layers", "5", "--exp", "other").returncode == 0


def test_what_may_change_opens_later_stages_again(recipe: Path) -> None:
    assert run(recipe).returncode == 0
    assert "was made with" in error(run(recipe, "--num-layers", "5", "--systems", "a b"))
    assert run(recipe).stdout.count("done before") == 3, "a run that is refused opens nothing"
    again = run(recipe, "--systems", "a b")
    assert (again.returncode, again.stdout.count("done before")) == (0, 1)
    assert again.stdout.startswith("--systems was 'a', and is 'a b': stages from train on look at what is missing\n")
    assert log(recipe) == ["data of  with 4", "train", "score", "train b", "score"]
    assert run(recipe, "--systems", "a b").stdout.count("done before") == 3


def test_a_setting_that_the_first_stage_refused_may_be_corrected(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("if stage data; then", 'if stage data; then\n  [ "$num_layers" != 0 ] || false', 1))
    assert run(recipe, "--num-layers", "0").returncode == 1
    assert run(recipe, "--num-layers", "5").returncode == 0


def test_a_failed_stage_is_not_done(recipe: Path) -> None:
    done = run(recipe, "--name", "bad")
    assert done.returncode == 1
    assert "stage 2 (train) did not finish" in done.stderr
    assert log(recipe) == ["data of bad with 4"]
    assert run(recipe).returncode == 0
    assert log(recipe)[1:] == ["train", "score"]


def test_a_mistake_that_a_stage_finds_is_one_line_and_exit_code_2(recipe: Path) -> None:
    assert error(run(recipe, "--name", "wrong")) == "reallm: error: name 'wrong': give another\n"
    assert run(recipe).returncode == 0
    assert log(recipe)[1:] == ["train", "score"]


def test_a_run_that_is_refused_leaves_nothing_behind(recipe: Path) -> None:
    recipe.write_text(
        recipe.read_text().replace("if stage data; then", 'if stage data; then\n  [ "$name" != none ] || _error "no data"', 1)
    )
    before = sorted(recipe.parent.rglob("*"))
    for options, message in (["--stage", "score"], "needs stage 1 (data), which is not done"), (["--name", "none"], "no data"):
        for exp in ("out", "a folder/of mine"):
            assert message in error(run(recipe, *options, "--exp", exp))
            assert sorted(recipe.parent.rglob("*")) == before
    (recipe.parent / "mine").mkdir()
    assert "no data" in error(run(recipe, "--name", "none", "--exp", "mine/out"))
    assert list((recipe.parent / "mine").iterdir()) == [], "the folder that was there"
    assert run(recipe, "--stop-stage", "data").returncode == 0
    assert "needs stage 2 (train)" in error(run(recipe, "--stage", "score"))
    assert "was made with num_layers=4" in error(run(recipe, "--num-layers", "5")), "what was done is kept"


def test_a_killed_stage_is_run_again_and_two_runs_do_not_meet(recipe: Path) -> None:
    process = subprocess.Popen(
        ["bash", str(recipe), "--name", "slow"], cwd=recipe.parent, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        begun = recipe.parent / "out/train.begun"
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.02)
        assert "another run is at work in 'out'" in error(run(recipe))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert sorted(p.name for p in (recipe.parent / "out/.done").glob("[a-z]*")) == ["data"]
    assert run(recipe).returncode == 0
    assert log(recipe)[1:] == ["train", "score"]


def test_the_template_explains_itself() -> None:
    done = run(ROOT / "egs/TEMPLATE/run.sh", "--help")
    assert done.returncode == 0
    for word in ("--data", "--exp", "--stage", "--stop-stage", "--nj", "report"):
        assert word in done.stdout


def shell(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, env={**os.environ, **environment})


def test_a_python_is_found_by_its_version(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = shell(f". {TOOLS}/find_python.sh; find_python 2.1 {version}").stdout.strip()
    assert subprocess.run([found, "-V"], capture_output=True, text=True).stdout.startswith(f"Python {version}")
    assert shell(f". {TOOLS}/find_python.sh; find_python 2.1").returncode == 1
    # As in a service, which has no home.
    homeless = shell(f"set -u; . {TOOLS}/find_python.sh; unset HOME PYENV_ROOT; PATH={Path(found).parent}; find_python {version}")
    assert homeless.stdout.strip() == found, homeless.stderr


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    done = shell(f". {TOOLS}/find_python.sh; need_disk {tmp_path} 999999999 'the environment'")
    assert done.returncode == 1
    assert "the environment needs 999999999 MB of disk" in done.stderr


def test_an_active_environment_with_the_package_is_used(tmp_path: Path) -> None:
    """Another environment than the clone's own: one that has reallm is taken, one without is not."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    ask = f"root={ROOT}; . {TOOLS}/active_python.sh; active_python"
    clean = {"CONDA_PREFIX": "", "VIRTUAL_ENV": str(tmp_path)}
    assert shell(ask, **clean).returncode == 1
    site = next(tmp_path.glob("lib/python*/site-packages"))
    (site / "reallm.pth").write_text(f"{ROOT}\n")
    assert shell(ask, **clean).stdout.strip() == str(tmp_path / "bin/python")
    assert shell(ask, CONDA_PREFIX=str(tmp_path), VIRTUAL_ENV="").stdout.strip() == str(tmp_path / "bin/python")
    assert shell(ask, CONDA_PREFIX="", VIRTUAL_ENV=str(ROOT / ".venv")).returncode == 1


@pytest.mark.parametrize("killed", [False, True])
def test_an_installation_that_fails_or_is_killed_leaves_nothing_unpacked(tmp_path: Path, killed: bool) -> None:
    for name in ("setup.sh", "find_python.sh", "active_python.sh", "requirements.lock"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        (tmp_path / "tools" / name).write_text((TOOLS / name).read_text())
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    unpacks = "echo wheel >$TMPDIR/unpacked; echo 'ERROR: no index' ; " + ("echo $$ >pid; exec sleep 60" if killed else "exit 1")
    python.write_text(f'#!/bin/bash\ncase "$*" in *"pip install"*) {unpacks} ;; esac\n')
    python.chmod(0o755)
    environment = {**os.environ, "VIRTUAL_ENV": "", "CONDA_PREFIX": ""}
    setup = subprocess.Popen(["bash", "tools/setup.sh"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    if killed:
        while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text().strip()):
            time.sleep(0.02)
        assert (tmp_path / ".venv.tmp/unpacked").exists()
        setup.terminate()
    _, errors = setup.communicate(timeout=30)
    assert setup.returncode == (-signal.SIGTERM if killed else 1)
    assert killed or "pip failed" in errors
    assert not killed or not Path("/proc", pid).exists()
    assert not (tmp_path / ".venv.tmp").exists()


def fake_k2(page: Path, version: str, code: str) -> None:
    info = f"k2-{version}.dist-info"
    with zipfile.ZipFile(page / f"k2-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("k2.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: k2\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_k2_from_a_page_is_verified_by_use(tmp_path: Path) -> None:
    """Of the builds on the page those for the environment's torch are tried; one that does not align is removed again."""
    import torch

    base = torch.__version__.split("+")[0]
    page, venv = tmp_path / "page", tmp_path / "venv"
    page.mkdir()
    fake_k2(page, f"1.24.4.dev1+cpu.torch{base}", "tried = True")
    fake_k2(page, "9.0+cpu.torch0.1", "raise RuntimeError('built for another torch')")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    here = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "packages_of_the_tests.pth").write_text(f"{here}\n")

    work = tmp_path / "clone"
    (work / "tools").mkdir(parents=True)
    for name in ("install_k2.sh", "find_python.sh", "verify_k2.py"):
        (work / "tools" / name).write_text((TOOLS / name).read_text())
    # What would follow, the side environment, is made to stop at once: no Python for it.
    (work / "tools/find_python.sh").write_text("find_python() { return 1; }\n")
    environment = {"REALLM_PYTHON": str(venv / "bin/python"), "REALLM_K2_PYTHON": "", "K2_FIND_LINKS": ""}
    done = shell(f"bash {work}/tools/install_k2.sh --find-links {page}", **environment)
    assert f"trying k2 1.24.4.dev1+cpu.torch{base}" in done.stdout, done
    assert "9.0+cpu" not in done.stdout
    assert "removed again" in done.stdout
    assert not (site / "k2.py").exists()
    assert done.returncode == 1
    assert "needs a Python 3.8 to 3.11" in done.stderr


def test_a_named_python_without_k2_is_an_error() -> None:
    done = shell(f"bash {TOOLS}/install_k2.sh", REALLM_K2_PYTHON="/bin/false", REALLM_PYTHON="/bin/false")
    assert done.returncode == 1
    assert "REALLM_K2_PYTHON=/bin/false has no k2 that works" in done.stderr


@pytest.mark.k2
def test_the_installed_k2_aligns() -> None:
    done = shell(f"bash {TOOLS}/install_k2.sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("install_k2: k2 ") and done.stdout.endswith("aligns\n") and done.stdout.count("\n") == 1


@pytest.mark.parametrize(("wer", "code"), [("24.9", 0), ("25.1", 1), ("NaN", 1)])
def test_a_result_that_is_too_bad_fails(tmp_path: Path, wer: str, code: int) -> None:
    head = '"system": "ctc", "split": "test", "corpus": {"kind": "real recordings"}, "words": 9'
    (tmp_path / "results.json").write_text(f'{{{head}, "wer": {wer}}}')
    command = [sys.executable, str(TOOLS / "check_results.py"), str(tmp_path), "--max-wer", "25"]
    assert subprocess.run(command, capture_output=True).returncode == code


def test_no_results_fail(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "check_results.py"), str(tmp_path), "--max-wer", "25"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no results*.json" in done.stderr


def results_table(folder: Path, *kinds: str, **changes: list[object]) -> subprocess.CompletedProcess[str]:
    for number, kind in enumerate(kinds):
        results = {
            "system": "ctc",
            "split": "test",
            "corpus": {"kind": kind},
            "wer": 1.0 + number,
            "wer_ci95": [0.5, 3.0],
            "errors": 1,
            "words": 100,
            "insertions": 0,
            "deletions": 1,
            "substitutions": 0,
            "emission_delay_ms": {"mean": 100.0 + number, "p50": 1.0, "p90": 2.0, "p99": 3.0},
            "rtf": 0.05,
            "parameters": 1_000_000,
        }
        results |= {key: values[number] for key, values in changes.items()}
        (folder / str(number)).mkdir()
        (folder / str(number) / "results.json").write_text(json.dumps(results))
    command = [sys.executable, str(TOOLS / "results_table.py"), "--mean", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_table_has_a_row_for_each_result_and_their_mean(tmp_path: Path) -> None:
    done = results_table(tmp_path, "real recordings", "real recordings")
    assert done.returncode == 0, done.stderr
    assert "| 1.00 (0.50–3.00) | 1 / 100 | 0 / 1 / 0 | 100 / 1 / 2 / 3 | 0.050 | 1.00 M |" in done.stdout
    assert "| ctc 1.00 M | test | 1.50 (2 runs) | 1.00 – 2.00 | 100 |" in done.stdout


def test_real_and_synthetic_results_never_share_a_table(tmp_path: Path) -> None:
    done = results_table(tmp_path, "real recordings", "synthetic speech")
    assert done.returncode == 2
    assert "real recordings and of synthetic speech" in done.stderr


def test_what_is_not_known_of_a_system_is_a_dash(tmp_path: Path) -> None:
    unknown: list[object] = [None, None]
    done = results_table(tmp_path, "real", "real", system=["ctc", None], rtf=unknown, parameters=unknown, emission_delay_ms=unknown)
    assert done.returncode == 0, done.stderr
    assert "| – | test | 2.00 (0.50–3.00) | 1 / 100 | 0 / 1 / 0 | – / – / – / – | – | – |" in done.stdout
    assert "| – | test | 2.00 (1 runs) |" in done.stdout


def test_delays_against_different_times_never_share_a_table(tmp_path: Path) -> None:
    done = results_table(tmp_path, "real", "real", reference_times=["rnnt viterbi 1", None])
    assert (done.returncode, done.stdout) == (2, "")
    assert "these delays are against rnnt viterbi 1 and against the true times" in done.stderr
    (tmp_path / "alike").mkdir()
    done = results_table(tmp_path / "alike", "real", "real", reference_times=["ctc k2 1", "ctc k2 1"])
    assert done.stdout.startswith("real, delays against ctc k2 1\n")


def test_no_results_make_no_table(tmp_path: Path) -> None:
    done = results_table(tmp_path)
    assert done.returncode == 2
    assert "run the score stage first" in done.stderr


def test_scripts_that_name_their_interpreter_can_be_run() -> None:
    scripts = [path for folder in ("tools", "egs", "tests") for path in (ROOT / folder).rglob("*.[ps][yh]") if path.is_file()]
    named = [path for path in scripts if path.read_bytes().startswith(b"#!")]
    assert len(named) > 15 and [str(path) for path in named if not os.access(path, os.X_OK)] == []
