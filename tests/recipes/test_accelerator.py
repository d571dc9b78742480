"""egs/speechocean762/accelerator.sh, with stand-ins for what takes long, and its configurations."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from reallm.registry import find
from tests.dummies.recipe import ROOT, arguments_of, built_on_meta, copy_recipe, write_pieces

CONF = ROOT / "egs/speechocean762/conf/accelerator"
PIP = """#!/usr/bin/env bash
while [ "$1" != -d ]; do shift; done
head -c 700000 /dev/zero >"$2/a.whl"
"""
PYTHON = Path(sys.executable).parent
# In place of the recipe: what it writes, with the packages that were carried and those of the python3 that set up.
RUN_SH = """#!/usr/bin/env bash
set -e
export PATH=$VIRTUAL_ENV/bin:$PATH
while [ "$1" != --exp ]; do shift; done
mkdir -p "$2/.done" "$2/speech_reallm.1/bundle" "$2/speech_reallm.1/decode/test-adult"
echo conf=conf/accelerator/20m >"$2/.done/.settings"
touch "$2/.done/export"
cd "$2/speech_reallm.1/decode/test-adult"
python -c 'import carried, typer, reallm; print(carried.WHERE, typer.__name__, reallm.__file__)' >results.json
head -c 20000000 /dev/urandom >"$2/speech_reallm.1/bundle/model.safetensors"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script in a clone without git, at ``tmp_path``/clone."""
    top = tmp_path / "clone"
    recipe = copy_recipe("speechocean762", top)
    shutil.copy(ROOT / "tools/requirements.lock", top / "tools")
    (top / "tools/activate.sh").write_text("")
    return recipe.with_name("accelerator.sh")


def call(script: Path, *options: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    top = script.parents[2]
    environment = {**os.environ, "PATH": f"{path or top / 'bin'}:{os.environ['PATH']}", "CALLS": str(top / "calls"), "REFUSED": "0"}
    for name in ("REALLM_DATA", "OUT"):
        environment.pop(name, None)
    return subprocess.run(["bash", str(script), *map(str, options)], env=environment, capture_output=True, text=True)


def corpora(folder: Path, size: int) -> list[str]:
    """Options that name a corpus whose train and test have ``size`` bytes each."""
    for split in ("train", "test"):
        (folder / "speech" / split).mkdir(parents=True)
        (folder / "speech" / split / "a.opus").write_bytes(bytes(size))
        (folder / "speech" / f"{split}.tsv").write_text("")
    (folder / "text").mkdir()
    for split in ("train", "dev", "test"):
        (folder / "text" / f"{split}.txt").write_text("")
    return ["--data", str(folder / "speech"), "--text", str(folder / "text")]


def test_what_is_carried_is_parted_by_what_a_call_carries(script: Path, tmp_path: Path) -> None:
    top = script.parents[2]
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    shutil.copy(ROOT / ".gitignore", top)
    (top / "bin/python").write_text(PIP)
    (top / "gone").write_text("")
    subprocess.run(["git", "-C", str(top), "add", "gone"], check=True)
    (top / "gone").unlink()
    options = corpora(tmp_path, 1_500_000)
    whole = call(script, "pack", *options)
    assert whole.returncode == 0, whole.stderr
    carried = script.parent / "data/carried"
    assert {path.name for path in carried.rglob("*") if path.is_file()} == {"a.whl", "text.tar.gz", "train.tar", "test.tar"}
    assert whole.stdout.count("\n") == 1 and whole.stdout.endswith("/carried/1 with: egs/speechocean762/accelerator.sh begin\n")
    parted = call(script, "pack", *options, "--mib", "3")
    assert [line.split()[-1] for line in parted.stdout.splitlines()] == ["receive", "begin"], parted.stderr
    assert (carried / "1/test.tar").exists() and (carried / "2/train.tar").exists() and not (carried / "1/train.tar").exists()
    large = call(script, "pack", *options, "--mib", "1")
    assert large.returncode == 2 and large.stderr.startswith("error: test.tar has 1.4 MiB: a call carries ")
    (script.parent / "conf/accelerator/wheels.txt").write_text("SoundFile\nsound.file\nsoxr\nnowhere\n")
    unknown = call(script, "pack", *options)
    message = "conf/accelerator/wheels.txt names sound.file nowhere, of which tools/requirements.lock has no version: mend one of them"
    assert (unknown.returncode, unknown.stderr) == (2, f"error: {message}\n")


def test_the_recipe_is_run_within_the_time(script: Path, tmp_path: Path) -> None:
    top = script.parents[2]
    shutil.copytree(top / "egs", tmp_path / "tree/egs")
    shutil.copytree(top / "tools", tmp_path / "tree/tools")
    for corpus in ("speechocean762", "text"):
        (tmp_path / "data" / corpus).mkdir(parents=True)
    (tmp_path / "started").write_text("1000000")
    (top / "bin/date").write_text("#!/usr/bin/env bash\necho 1000120\n")
    (top / "bin/date").chmod(0o755)
    done = call(script, "work", "--work", tmp_path, "--minutes", "24.5", "--reserve", "8.5", "--size", "20m")
    assert done.returncode == 0, done.stderr
    made = (top / "calls").read_text().splitlines()
    trained = [line.split() for line in made if line.startswith("train ")]
    minutes = [float(word.removeprefix("minutes=")) for line in trained for word in line if word.startswith("minutes=")]
    assert minutes[:3] == pytest.approx([14 * share for share in (0.12, 0.28, 0.10)]), "two minutes are gone, eight reserved"
    assert minutes[3:] == pytest.approx([18.25 * share for share in (0.7, 0.3)]), "no time went by, and half of the reserve"
    assert {line[1].rpartition("/")[0] for line in trained} == {str(tmp_path / "tree/egs/speechocean762/conf/accelerator/20m")}
    assert all(" --device cuda" in line for line in made if line.split()[0] in ("train", "align", "decode"))
    assert [line.split()[0] for line in made if line.split()[0] != "data"][-4:] == ["score", "score", "score", "report"]
    assert (tmp_path / "exp/.done/report").exists()


def carry(script: Path, tmp_path: Path) -> Path:
    """What `pack` collects, in two parts, for a clone whose recipe is RUN_SH; returns their folder."""
    top, carried = script.parents[2], script.parent / "data/carried"
    for part in ("1", "2"):
        (carried / part).mkdir(parents=True)
    (carried / "1/wheels").mkdir()
    with zipfile.ZipFile(carried / "1/wheels/carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "WHERE = __file__")
        wheel.writestr("carried-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1\n")
        wheel.writestr("carried-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.dist-info/RECORD", "")
    corpora(tmp_path, 10)
    subprocess.run(["tar", "-C", tmp_path / "text", "-czf", carried / "1/text.tar.gz", "."], check=True)
    for split, part in (("test", "1"), ("train", "2")):
        subprocess.run(["tar", "-C", tmp_path / "speech", "-cf", carried / part / f"{split}.tar", split, f"{split}.tsv"], check=True)
    for name in ("reallm", "hparams"):
        (top / name).mkdir()
    for name in ("reallm/__init__.py", "setup.cfg", "setup.py", "pyproject.toml"):
        (top / name).write_text("")
    script.with_name("run.sh").write_text(RUN_SH)
    return carried


def unpack(out: Path, name: str) -> None:
    subprocess.run(["bash", "-c", f"cat {name}.tar.gz.* | tar -xz"], cwd=out, check=True)


def test_a_run_from_what_was_carried_to_what_comes_back(script: Path, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    early = call(script, "begin", "--work", tmp_path / "early")
    assert early.returncode == 2 and early.stderr.startswith("error: no wheels was carried: name its part in this call")
    carried = carry(script, tmp_path)
    shutil.move(carried / "2", tmp_path)
    assert call(script, "receive", "--work", work).stdout.split() == ["test.tar", "text.tar.gz", "wheels"]
    shutil.rmtree(carried / "1")
    shutil.move(tmp_path / "2", carried)
    begun = call(script, "begin", "--work", work, "--size", "20m", "--wait", "60", "--out", out, path=PYTHON)
    assert begun.returncode == 0 and "ended with exit code 0" in begun.stdout, begun
    assert sorted(path.name for path in out.iterdir()) == ["bundle.tar.gz.00", "bundle.tar.gz.01", "results.tar.gz.00"]
    assert max(path.stat().st_size for path in out.iterdir()) <= 16 * 2**20
    for name in ("results", "bundle"):
        unpack(out, name)
    assert (out / "exp/speech_reallm.1/bundle/model.safetensors").stat().st_size == 20_000_000
    found = (out / "exp/speech_reallm.1/decode/test-adult/results.json").read_text().split()
    assert found[0].startswith(str(work / "venv")) and found[1:] == ["typer", str(work / "tree/reallm/__init__.py")]
    assert (work / "data/speechocean762/train/a.opus").exists() and (work / "data/text/dev.txt").exists()
    again = call(script, "begin", "--work", work)
    assert again.returncode == 2 and "a run was begun in" in again.stderr


def test_a_set_up_that_fails_begins_nothing(script: Path, tmp_path: Path) -> None:
    carried = carry(script, tmp_path)
    (carried / "1/wheels/carried-1-py3-none-any.whl").write_bytes(b"no archive")
    begun = call(script, "begin", "--work", tmp_path / "work", "--wait", "5", path=PYTHON)
    assert begun.returncode not in (0, 2) and "carried-1-py3-none-any.whl" in begun.stderr, begun
    assert not (tmp_path / "work/started").exists() and "since the beginning" not in begun.stdout


def test_of_a_recipe_that_failed_at_once_the_log_comes_back(script: Path, tmp_path: Path) -> None:
    carry(script, tmp_path)
    script.with_name("run.sh").write_text("#!/usr/bin/env bash\necho why it failed >&2\nexit 3\n")
    begun = call(script, "begin", "--work", tmp_path / "work", "--wait", "60", "--out", tmp_path / "out", path=PYTHON)
    assert begun.returncode == 0 and "why it failed\nended with exit code 3\n" in begun.stdout, begun
    unpack(tmp_path / "out", "results")
    assert "why it failed" in (tmp_path / "out/log").read_text() and (tmp_path / "out/ended").read_text() == "3\n"


@pytest.mark.parametrize(("status", "comes"), [(1, True), (2, False)])
def test_files_that_grow_while_they_are_read_come_back(script: Path, tmp_path: Path, status: int, comes: bool) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    (work / "started").write_text(str(int(time.time())))
    (work / "log").write_text("so far")
    tar = script.parents[2] / "bin/tar"
    tar.write_text(f'#!/usr/bin/env bash\n{shutil.which("tar")} "$@"\necho "tar: log: file changed as we read it" >&2\nexit {status}\n')
    tar.chmod(0o755)
    polled = call(script, "poll", "--work", work, "--wait", "0", "--out", out)
    assert (polled.returncode == 0) is comes, polled
    if comes:
        unpack(out, "results")
        assert (out / "log").read_text() == "so far"


def test_mistakes(script: Path, tmp_path: Path) -> None:
    for options, message in (
        (["peck"], "'peck': pack, receive, begin or poll"),
        (["begin", "--size", "7b"], "--size '7b': 80m or 20m"),
        (["begin", "--shares", "1 2"], "--shares '1 2': five numbers"),
        (["poll", "--work", str(tmp_path)], f"nothing was begun in '{tmp_path}'"),
        (["pack", "--data", "nowhere"], "--data 'nowhere': no folder with train.tsv, test.tsv and their audio"),
    ):
        done = call(script, *options)
        assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert call(script).stdout.startswith("Speech ReaLLM of 80M parameters, or 20M, on an accelerator")


@pytest.mark.parametrize(("size", "least", "most"), [("80m", 78, 82), ("20m", 18, 25)])
def test_sizes(size: str, least: float, most: float, tmp_path: Path) -> None:
    pieces = write_pieces(tmp_path)
    student, teacher = (built_on_meta(CONF / size / f"{name}.yaml", pieces) for name in ("speech_reallm", "teacher_ctc"))
    assert isinstance(student, find("system", "speech_reallm"))
    assert least < sum(parameter.numel() for parameter in student.parameters()) / 1e6 < most
    shapes = [{name: tensor.shape for name, tensor in system.encoder.state_dict().items()} for system in (student, teacher)]
    assert shapes[0] == shapes[1], "the teacher gives its encoder"
    assert arguments_of(student.encoder) == arguments_of(teacher.encoder)
    assert student.encoder.chunk in teacher.training_chunks and None in teacher.training_chunks
