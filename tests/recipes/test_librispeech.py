"""What egs/librispeech/run.sh calls for other systems and with alignments made elsewhere, with a `reallm` that only notes it."""

from pathlib import Path

import pytest

from tests.recipes.test_run_sh import recipe, run  # noqa: F401

CALLS = pytest.mark.parametrize("recipe", ["librispeech"], indirect=True)


def calls(script: Path, *options: str) -> list[str]:
    """One line a call, without the folders of the test."""
    top = script.parents[2]
    (top / "calls").unlink(missing_ok=True)
    done = run(script, *options)
    assert done.returncode == 0, done.stderr
    return [line.replace(f"{script.parent}/", "") for line in (top / "calls").read_text().splitlines()]


@CALLS
def test_alignments_made_elsewhere_replace_the_teacher(recipe: Path) -> None:  # noqa: F811
    made = calls(recipe, "--corpus", "here", "--alignments", "theirs")
    trained = [line for line in made if line.startswith("train ")]
    assert len(trained) == 1 and "speech_reallm" in trained[0] and "--init" not in trained[0]
    taken = [line for line in made if line.startswith("data alignments")]
    assert len(taken) == 5 and all("--alignments theirs" in line for line in taken)
    assert not any(line.startswith("align ") or "--teacher" in line for line in made)


@CALLS
def test_another_system_takes_data_teacher_and_alignments_of_a_run(recipe: Path, tmp_path: Path) -> None:  # noqa: F811
    first = calls(recipe, "--corpus", "here", "--teacher", "rnnt")
    assert any("conf/teacher_rnnt.yaml" in line for line in first)
    assert sum("--override delay=" in line for line in first) == 1
    base = str(recipe.parent / "exp")
    made = calls(recipe, "--system", "aed_240m", "--exp", str(tmp_path / "aed"), "--from", base)
    assert {line.split()[0] for line in made} == {"train", "export", "decode", "score", "report"}
    assert "conf/aed_240m.yaml" in made[0] and "--init exp/teacher" in made[0] and "--train exp/align/train_sp.jsonl.gz" in made[0]
    assert "delay=" not in made[0]


@CALLS
def test_a_download_goes_where_everything_goes(recipe: Path) -> None:  # noqa: F811
    made = calls(recipe, "--train-sets", "460", "--device", "cuda")
    assert made[0] == "data librispeech --out exp/data --train-sets 460 --nj 2 --download-to exp/corpus --download-only"
    assert made[1] == made[0].removesuffix(" --download-only")
    assert made[2].startswith("data speed exp/data/train.jsonl.gz --out exp/data/train_sp.jsonl.gz")
    assert all(line.endswith("--device cuda") for line in made if line.split()[0] in ("train", "align", "decode"))


@CALLS
def test_features_are_stored_for_both_trainings(recipe: Path) -> None:  # noqa: F811
    made = calls(recipe, "--corpus", "here", "--features", "stored")
    kept = [line for line in made if line.startswith("data features")]
    assert [line.split()[2] for line in kept] == ["exp/data/train_sp.jsonl.gz", "exp/align/train_sp.jsonl.gz"]
    assert all("--conf conf/speech_reallm.yaml --store exp/features" in line for line in kept)
    assert sum("--override features=stored" in line for line in made) == 2
    wrong = run(recipe, "--exp", str(recipe.parent / "exp2"), "--features", "cached")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --features 'cached': online or stored\n")
