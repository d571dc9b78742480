"""What egs/librispeech/run.sh calls for other systems and with alignments made elsewhere, with a `reallm` that only notes it."""

import re
from pathlib import Path

import pytest

from reallm.config import load
from tests.dummies.recipe import ROOT, built_on_meta, calls, run, write_pieces

CONF = ROOT / "egs/librispeech/conf/small"
RIVALS = ["ctc", "transducer", "aed", "decoder_only"]
CALLS = pytest.mark.parametrize("recipe", ["librispeech"], indirect=True)


def folder(script: Path, name: str) -> str:
    """One beside the recipe, with an alignment."""
    script.with_name(name).mkdir()
    (script.with_name(name) / "one.ctm").write_text("")
    return str(script.with_name(name))


@CALLS
def test_alignments_made_elsewhere_replace_the_teacher(recipe: Path) -> None:
    made = calls(recipe, "--corpus", "here", "--alignments", folder(recipe, "theirs"))
    trained = [line for line in made if line.startswith("train ")]
    assert len(trained) == 1 and "speech_reallm" in trained[0] and "--init" not in trained[0]
    taken = [line for line in made if line.startswith("data alignments")]
    assert len(taken) == 5 and all("--alignments theirs" in line and line.endswith("--jobs 2") for line in taken)
    assert not any(line.startswith("align ") or "--teacher" in line for line in made)


@CALLS
def test_an_encoder_that_nobody_taught_is_not_frozen(recipe: Path, tmp_path: Path) -> None:
    """Without a teacher, in the first updates, or by a tunable of that name."""
    rival = ("--corpus", "here", "--conf", "conf/small", "--system", "aed", "--alignments", folder(recipe, "theirs"))
    (trained,) = (line for line in calls(recipe, *rival) if line.startswith("train "))
    assert "--override frozen_updates=0" in trained and "--init" not in trained
    asked = calls(recipe, *rival, "--tunables", "frozen_updates=7", "--exp", str(tmp_path / "other"))
    (trained,) = (line for line in asked if line.startswith("train "))
    assert re.findall("frozen_updates=[0-9]+", trained) == ["frozen_updates=7"]
    ours = calls(recipe, *rival[:-2], "--exp", str(tmp_path / "ours"))
    assert not any("frozen_updates=" in line for line in ours), "as the configuration says"
    assert load(CONF / "aed.yaml").value("training", "frozen_updates") == 500


@CALLS
def test_another_system_takes_data_teacher_and_alignments_of_a_run(recipe: Path, tmp_path: Path) -> None:
    first = calls(recipe, "--corpus", "here", "--teacher", "rnnt")
    assert any("conf/teacher_rnnt.yaml" in line for line in first)
    assert sum("--override delay=" in line for line in first) == 1
    base = str(recipe.parent / "exp")
    made = calls(recipe, "--system", "aed_240m", "--exp", str(tmp_path / "aed"), "--from", base)
    assert {line.split()[0] for line in made} == {"train", "export", "decode", "score", "report"}
    assert "conf/aed_240m.yaml" in made[0] and "--init exp/teacher" in made[0] and "--train exp/align/train_sp.jsonl.gz" in made[0]
    assert "delay=" not in made[0]


@CALLS
@pytest.mark.parametrize("system", RIVALS)
def test_each_small_rival_is_one_command(recipe: Path, tmp_path: Path, system: str) -> None:
    small = ("--config", "conf/small.sh")
    base = str(recipe.parent / "exp")
    calls(recipe, *small, "--exp", base)
    made = calls(recipe, *small, "--from", base, "--exp", str(tmp_path / system), "--system", system)
    assert [line.split()[0] for line in made] == ["train", "export", *["decode"] * 4, *["score"] * 4, "report"]
    assert made[0].startswith(f"train conf/small/{system}.yaml --exp {tmp_path / system}/{system} --train exp/align/train_sp.jsonl.gz ")
    assert "epochs=4" in made[0].split() and "--init exp/teacher" in made[0]


@CALLS
def test_a_star_in_a_tunable_is_no_pattern_of_the_shell(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "stride=33").touch()
    monkeypatch.chdir(tmp_path / "here")
    made = calls(recipe, "--corpus", "here", "--tunables", "stride=3*\nflush_periods=8")  # two lines, as a --config may have them
    assert sum("--override stride=3* --override flush_periods=8" in line for line in made) == 2
    assert not any("stride=33" in line for line in made)


@CALLS
def test_tunables_are_judged_first_and_handed_to_the_training_of_the_system(recipe: Path) -> None:
    made = calls(recipe, "--corpus", "here", "--tunables", "stride=3 flush_periods=8", "--delay", "6")
    asked = "config check conf/speech_reallm.yaml --override delay=6 --override stride=3 --override flush_periods=8"
    assert made[0] == asked
    assert ["--override stride=3 --override flush_periods=8" in line for line in made if line.startswith("train ")] == [False, True]
    load(ROOT / "egs/librispeech/conf/speech_reallm.yaml", ["stride=3", "flush_periods=8"])
    other = run(recipe, "--corpus", "here", "--tunables", "stride=2 flush_periods=8", "--delay", "6")
    assert (
        other.returncode == 2 and "was made with tunables=stride=3 flush_periods=8, not tunables=stride=2 flush_periods=8" in other.stderr
    )


def test_small_systems_are_of_one_size_and_encoder(tmp_path: Path) -> None:
    pieces = write_pieces(tmp_path)
    systems = {name: built_on_meta(CONF / f"{name}.yaml", pieces) for name in ("speech_reallm", *RIVALS)}
    sizes = {name: sum(parameter.numel() for parameter in system.parameters()) for name, system in systems.items()}
    assert all(0.95 < size / sizes["speech_reallm"] < 1.1 for size in sizes.values()), sizes
    shapes = {name: {key: value.shape for key, value in system.encoder.state_dict().items()} for name, system in systems.items()}
    own = shapes["speech_reallm"]
    assert all({key: shape.get(key) for key in own} == own for shape in shapes.values()), (
        "they begin with the teacher's, ctc's last layers aside"
    )
    assert all(system.encoder.chunk == systems["ctc"].encoder.chunk for system in systems.values())


@CALLS
def test_a_download_goes_where_everything_goes(recipe: Path) -> None:
    made = calls(recipe, "--train-sets", "460", "--device", "cuda")
    assert made[0] == "data librispeech --out exp/data --train-sets 460 --jobs 2 --download-to exp/corpus --download-only"
    assert made[1] == made[0].removesuffix(" --download-only")
    assert made[2].startswith("data speed exp/data/train.jsonl.gz --out exp/data/train_sp.jsonl.gz")
    assert all(line.endswith("--device cuda") for line in made if line.split()[0] in ("train", "align", "decode"))


@CALLS
def test_a_cluster_prepares_aligns_and_decodes(recipe: Path) -> None:
    made = calls(recipe, "--corpus", "here", "--features", "stored", "--dask", "tcp://there:8786")
    shared = [line for line in made if "--dask tcp://there:8786" in line]
    assert {" ".join(line.split()[:2]) for line in shared if line.startswith("data")} == {"data librispeech", "data features"}
    assert sum(line.startswith("align ") for line in shared) == 5 and sum(line.startswith("decode ") for line in shared) == 4
    assert not any("--jobs" in line for line in made)


@CALLS
def test_a_cluster_speaks(recipe: Path) -> None:
    for options, share in ((("--dask", "tcp://there:8786"), "--dask tcp://there:8786"), (("--nj", "3"), "--jobs 3")):
        made = calls(recipe, "--exp", str(recipe.parent / options[0]), "--synthetic", "1", "--stop-stage", "download", *options)
        assert len(made) == 1 and made[0].startswith("data synthetic-librispeech ") and made[0].endswith(share)


@CALLS
def test_features_are_stored_for_both_trainings(recipe: Path) -> None:
    made = calls(recipe, "--corpus", "here", "--features", "stored")
    kept = [line for line in made if line.startswith("data features")]
    assert [line.split()[2] for line in kept] == ["exp/data/train_sp.jsonl.gz", "exp/align/train_sp.jsonl.gz"]
    assert all("--conf conf/speech_reallm.yaml --store exp/features" in line for line in kept)
    assert sum("--override features=stored" in line for line in made) == 2
    wrong = run(recipe, "--exp", str(recipe.parent / "exp2"), "--features", "cached")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --features 'cached': online or stored\n")


def with_manifests(recipe: Path, *splits: str) -> None:
    """Its `reallm` makes these splits when it is asked for data."""
    stand_in = recipe.parents[2] / "bin/reallm"
    made = " ".join(f"exp/data/{split}.jsonl.gz" for split in splits)
    stand_in.write_text(
        stand_in.read_text() + f'case "$*" in "data librispeech"*) cd {recipe.parent}; mkdir -p exp/data; touch {made} ;; esac\n'
    )


@CALLS
def test_a_subset_is_decoded_as_far_as_it_goes(recipe: Path, tmp_path: Path) -> None:
    with_manifests(recipe, "train", "dev-clean", "test-other")
    made = calls(recipe, "--corpus", "here", "--subset")
    parts = [line.partition("--cuts exp/data/")[2].partition(".")[0] for line in made if line.startswith("decode ")]
    assert parts == ["dev-clean", "test-other"]
    made = calls(recipe, "--exp", str(tmp_path / "other"), "--from", str(recipe.parent / "exp"))
    assert sum(line.startswith("decode ") for line in made) == 2


@CALLS
@pytest.mark.parametrize("missing", ["train", "dev-clean"])
def test_a_subset_without_what_training_needs_is_refused_in_one_line(recipe: Path, missing: str) -> None:
    with_manifests(recipe, "test-clean", *({"train", "dev-clean"} - {missing}))
    done = run(recipe, "--corpus", "here", "--subset")
    line = f"error: the corpus has no part for {missing}: with --subset too, a training part and dev-clean are needed\n"
    assert (done.returncode, done.stderr) == (2, line)


@CALLS
def test_what_the_base_was_made_with_is_taken_over(recipe: Path, tmp_path: Path) -> None:
    calls(recipe, "--corpus", "here", "--train-sets", "100", "--vocab", "500", "--alignments", folder(recipe, "theirs"))
    made = calls(recipe, "--exp", str(tmp_path / "aed"), "--from", str(recipe.parent / "exp"), "--system", "aed")
    assert "--init" not in made[0] and not any("--teacher" in line for line in made), "there is no teacher"
    recorded = (tmp_path / "aed/.done/.settings").read_text().splitlines()
    assert {"corpus=here", "train_sets=100", "vocab=500", f"alignments={recipe.parent / 'theirs'}", "system=aed"} <= set(recorded)


@CALLS
def test_another_text_is_another_corpus(recipe: Path) -> None:
    one, two = folder(recipe, "one"), folder(recipe, "two")
    calls(recipe, "--synthetic", "1", "--text", one)
    for option, value in (("--text", two), ("--eval-utterances", "3")):
        done = run(recipe, "--synthetic", "1", "--text", one, option, value)
        assert done.returncode == 2 and "was made with" in done.stderr


@CALLS
def test_a_teacher_that_is_not_there(recipe: Path) -> None:
    (recipe.parent / "conf/teacher_rnnt.yaml").rename(recipe.parent / "conf/teacher_hmm.yaml")
    done = run(recipe, "--teacher", "rnnt")
    assert (done.returncode, done.stderr) == (2, "error: --teacher 'rnnt': ctc or hmm\n")
