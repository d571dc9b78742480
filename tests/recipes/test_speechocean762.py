"""What egs/speechocean762/run.sh calls, with a `reallm` that only notes it."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reallm.config import Config, load
from reallm.config.document import walk
from reallm.protocols import streams
from reallm.registry import find, spec_of
from tests.dummies.command import run_and_read
from tests.dummies.recipe import REFUSAL, ROOT, arguments_of, built_on_meta, calls, run

CONF = ROOT / "egs/speechocean762/conf"
CALLS = pytest.mark.parametrize("recipe", ["speechocean762"], indirect=True)
SYSTEMS = ["ctc", "transducer", "aed", "aed_large", "decoder_only", "speech_reallm"]
TESTS = ["test-adult", "test-child", "test-synthetic", "test-digits"]


def option(line: str, name: str) -> str:
    words = line.split()
    return words[words.index(name) + 1]


def option_or_none(line: str, name: str) -> str | None:
    return option(line, name) if name in line.split() else None


@CALLS
def test_all_systems_are_trained_alike(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--seeds", "1 2")
    trained = [line for line in made if line.startswith("train conf/") and "teacher_" not in line]
    assert len(trained) == 2 * len(SYSTEMS) * 2
    for stage, corpus, init in (("/pretrained", "exp/align/synth", "exp/teacher/pretrained"), ("", "exp/align/train", None)):
        those = [line for line in trained if option(line, "--exp").endswith("/pretrained") == bool(stage)]
        names = [f"{system}.{seed}" for system in SYSTEMS for seed in (1, 2)]
        assert [option(line, "--exp") for line in those] == [f"exp/{name}{stage}" for name in names]
        assert {option(line, "--train") for line in those} == {f"{corpus}.jsonl.gz"}
        assert [option(line, "--init") for line in those] == [init or f"exp/{name}/pretrained" for name in names]
        assert all(("--init-part frontend --init-part encoder --override" in line) == bool(stage) for line in those), "and no more"
        assert all(("frozen_updates=500" in line.split()) == bool(stage) for line in those)
        assert len({line[line.index("epochs=") :].split()[0] for line in those}) == 1, "as many updates"
        assert all(f"seed={name.partition('.')[2]}" in line.split() for name, line in zip(names, those, strict=True))
        assert [("delay=" in line) for line in those] == ["speech_reallm" in name for name in names]


@CALLS
def test_streaming_systems_alone_are_decoded_with_other_chunks(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--seeds", "1", "--tests", "test-child test-digits", "--device", "cuda")
    decoded = [line for line in made if line.startswith("decode ")]
    assert sum("chunk_size" in line for line in decoded) == 3 * 2 * 2 and len(decoded) == 12 + 6 * 2
    assert not any("aed" in line or "decoder_only" in line for line in decoded if "chunk_size" in line)
    assert all(option(line, "--cuts") in ("exp/data/test-child.jsonl.gz", "exp/digits/test_noisy.jsonl.gz") for line in decoded)
    assert not any(line.endswith("test-adult.jsonl.gz") for line in made)
    assert all(line.endswith("--device cuda") for line in made if line.split()[0] in ("train", "align", "decode"))


@CALLS
def test_a_part_of_the_corpus_is_taken_where_it_is_asked_for(recipe: Path, tmp_path: Path) -> None:
    options = ["--data", "here", "--stop-stage", "data", "--exp", str(tmp_path / "whole")]
    assert "--subset" not in calls(recipe, *options)[0].split()
    done = run(recipe, *options, "--subset")
    assert (done.returncode, "made with subset=false, not subset=true" in done.stderr) == (2, True)
    assert "--subset" in calls(recipe, *options[:-1], str(tmp_path / "part"), "--subset")[0].split()


@CALLS
def test_a_speech_reallm_with_other_tunables(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--seeds", "1", "--tunables", "time_jitter=1 scheduled_sampling=0.25")
    trained = {line.split()[1]: line for line in made if line.startswith("train ")}
    changed = "--override delay=1 --override time_jitter=1 --override scheduled_sampling=0.25"
    assert [changed in line for line in trained.values()] == ["speech_reallm" in name for name in trained]
    for name in ("speechocean762", "TEMPLATE", "digits"):
        load(ROOT / f"egs/{name}/conf/speech_reallm.yaml", ["time_jitter=1", "scheduled_sampling=0.25", "blank_weight=0.5"])


@CALLS
def test_tunables_are_judged_before_anything_is_done(recipe: Path) -> None:
    for given, systems, message in (
        ("time_jitter=1 time_jiter=2", "speech_reallm", "'time_jiter=2': conf/speech_reallm.yaml has no time_jiter"),
        ("system.delay=1", "speech_reallm", "'system.delay=1': conf/speech_reallm.yaml has no system.delay"),
        ("delay=2", "speech_reallm", "'delay=2': other options set delay: see --help"),
        ("time_jitter", "speech_reallm", "'time_jitter': KEY=VALUE, such as layers=4"),
        (
            "time_jitter=1",
            "ctc aed",
            "'time_jitter=1': are for speech_reallm, which --systems 'ctc aed' has not: leave one of the two out",
        ),
    ):
        done = run(recipe, "--data", "here", "--systems", systems, "--tunables", given)
        assert (done.returncode, done.stderr) == (2, f"error: --tunables {message}\n")
    assert not (recipe.parents[2] / "calls").exists()


@CALLS
def test_values_of_tunables_are_judged_before_the_first_stage(recipe: Path) -> None:
    exp = recipe.parent / "exp"
    tunables = "decoder_layers=many flush_periods=9"
    done = run(recipe, "--data", "here", "--delay", "6", "--tunables", tunables, refused=1)
    assert (done.returncode, done.stderr) == (2, f"error: --tunables '{tunables}': {REFUSAL}\n")
    asked = (
        f"config check {recipe.parent}/conf/speech_reallm.yaml --override delay=6 --override decoder_layers=many --override flush_periods=9"
    )
    assert (recipe.parents[2] / "calls").read_text().splitlines() == [asked] and not exp.exists()
    conf = CONF / "speech_reallm.yaml"
    for wrong, message in (
        (["decoder_layers=many"], "decoder_layers: the text 'many' is not a whole number"),
        (["stride=6"], "chunk"),
        (["delay=6", "flush_periods=5"], "delay"),
        (["stride=8", "flush_periods=9", "delay=6"], None),
    ):
        code, said = run_and_read("config", "check", conf, *(word for each in wrong for word in ("--override", each)))
        assert code == (0 if message is None else 2) and (message or "1 file without problems") in said, said


@CALLS
def test_text_that_nobody_named(recipe: Path) -> None:
    (recipe.parents[2] / "data/text").rmdir()
    done = run(recipe, "--data", "here")
    message = "error: no text to speak: name a folder of train.txt, dev.txt and test.txt with --text DIR, or set REALLM_DATA\n"
    assert (done.returncode, done.stderr) == (2, message) and not (recipe.parents[2] / "calls").exists()


@CALLS
def test_chunks_are_judged_by_the_token_period_that_is_trained(recipe: Path) -> None:
    assert "--set encoder.chunk_size=24" in "\n".join(calls(recipe, "--data", "here", "--tunables", "stride=8", "--chunks", "8 24"))
    done = run(recipe, "--data", "here", "--exp", "two", "--tunables", "stride=8", "--chunks", "8 20")
    assert (done.returncode, done.stderr) == (2, "error: --chunks '20': a multiple of 8 encoder frames, the token period\n")
    wrong = run(recipe, "--data", "here", "--exp", "two", "--tunables", "stride=x")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --tunables 'stride=x': a whole number from 1 on\n")
    conf = recipe.parent / "conf/encoder.yaml"
    conf.write_text(conf.read_text().replace("chunk_size: 8", "chunk_size: !ref <eight>"))
    spelled = run(recipe, "--data", "here", "--exp", "two")
    assert (spelled.returncode, spelled.stderr) == (
        2,
        "error: --conf 'conf': encoder.yaml has no line 'chunk_size: N', with a whole number N\n",
    )


@CALLS
def test_a_cluster_prepares_speaks_aligns_and_decodes(recipe: Path) -> None:
    address = "tcp://there:8786"
    made = calls(recipe, "--data", "here", "--systems", "ctc", "--seeds", "1", "--dask", address, "--device", "cuda")
    shared = [line for line in made if option_or_none(line, "--dask") == address]
    assert [" ".join(line.split()[:2]) for line in shared if line.startswith("data")] == ["data speechocean762", *["data synthetic"] * 2]
    for verb in ("align", "decode"):
        assert {line in shared for line in made if line.startswith(f"{verb} ")} == {True}
    assert not any("--jobs" in line for line in made)


@CALLS
def test_the_time_of_each_training_is_limited_by_a_key_of_every_configuration(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--seeds", "1", "--minutes", "1 2 3 4 5.5")
    trained = [line for line in made if line.startswith("train ")]
    minutes = [word.removeprefix("minutes=") for line in trained for word in line.split() if word.startswith("minutes=")]
    assert minutes == ["1", "2", "3", *["4"] * len(SYSTEMS), *["5.5"] * len(SYSTEMS)] and len(trained) == len(minutes)
    for name in ("teacher_ctc", "teacher_rnnt", *SYSTEMS):
        assert load(ROOT / f"egs/speechocean762/conf/{name}.yaml", ["minutes=0.5"]).build("training")["training"].minutes == 0.5


@CALLS
def test_one_of_so_many_real_utterances_is_decoded(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--systems", "ctc", "--seeds", "1", "--every", "5")
    decoded = {option(line, "--out").split("/")[-1]: option_or_none(line, "--every") for line in made if line.startswith("decode ")}
    some = {"test-adult", "test-child"}
    assert decoded == {f"{test}{chunk}": "5" if test in some else None for test in TESTS for chunk in ("", ".chunk4", ".chunk16")}


@CALLS
def test_each_corpus_is_aligned_by_the_teacher_that_heard_it_last(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--stop-stage", "align", "--teacher", "rnnt", "--speeds", "0.95 1.05")
    aligned = {option(line, "--out").split("/")[-1].split(".")[0]: line.split()[1] for line in made if line.startswith("align ")}
    real = dict.fromkeys(("train_1", "test-adult", "test-child"), "exp/teacher")
    assert aligned == {**real, "synth": "exp/teacher/pretrained", "test-synthetic": "exp/teacher/pretrained"}
    taught = [line for line in made if "conf/teacher_rnnt.yaml" in line]
    assert [option(line, "--exp") for line in taught] == ["exp/teacher/easy", "exp/teacher/pretrained", "exp/teacher"]
    assert [option(line, "--init") for line in taught[1:]] == ["exp/teacher/easy", "exp/teacher/pretrained"]
    assert [option(line, "--train") for line in taught] == [
        f"exp/{name}.jsonl.gz" for name in ("easy/train", "synth/train", "data/train_sp")
    ]
    assert "augmentation=null" in taught[0] and not any("augmentation" in line for line in taught[1:])
    assert sum(line.endswith("--factor 0.95 --factor 1.05") for line in made if line.startswith("data speed")) == 2


@CALLS
def test_another_run_takes_data_teacher_and_alignments(recipe: Path, tmp_path: Path) -> None:
    calls(recipe, "--data", "here", "--stop-stage", "align", "--hours", "2")
    base = str(recipe.parent / "exp")
    made = calls(recipe, "--exp", str(tmp_path / "two"), "--from", base, "--systems", "speech_reallm", "--seeds", "3", "--delay", "2")
    assert {line.split()[0] for line in made} == {"train", "export", "decode", "score", "report"}
    assert "--init exp/teacher/pretrained" in made[0] and "--override delay=2" in made[0]
    assert "hours=2" in (tmp_path / "two/.done/.settings").read_text().splitlines()
    early = run(recipe, "--exp", str(tmp_path / "three"), "--from", str(tmp_path))
    assert early.returncode == 2 and "stage 'align' is not done there" in early.stderr


@CALLS
def test_a_system_that_is_named_later(recipe: Path) -> None:
    assert any("transducer.1" in line for line in calls(recipe, "--data", "here", "--systems", "transducer", "--seeds", "1"))
    more = calls(recipe, "--data", "here", "--systems", "transducer ctc", "--seeds", "1")
    assert [option(line, "--exp") for line in more if line.startswith("train ")] == [
        f"exp/{name}" for name in ("transducer.1/pretrained", "ctc.1/pretrained", "transducer.1", "ctc.1")
    ], "those that are finished say so"
    assert not any(line.startswith(("data ", "align ")) for line in more)


@CALLS
def test_synthetic_speech_is_for_systems_that_have_not_forgotten_it(recipe: Path) -> None:
    made = calls(recipe, "--data", "here", "--systems", "ctc", "--seeds", "1")
    bundles = {option(line, "--cuts"): line.split()[1] for line in made if line.startswith("decode ")}
    assert bundles.pop("exp/synth/test.jsonl.gz") == "exp/ctc.1/pretrained/bundle"
    assert len(bundles) == 3 and set(bundles.values()) == {"exp/ctc.1/bundle"}
    assert [option(line, "--out") for line in made if line.startswith("export ")] == ["exp/ctc.1/pretrained/bundle", "exp/ctc.1/bundle"]


@CALLS
def test_a_table_of_nothing(recipe: Path) -> None:
    for folders, message in (["nowhere"], "'nowhere' has no results: "), ([], "name one or more folders "):
        done = run(recipe.with_name("table.sh"), *folders)
        assert (done.returncode, done.stderr.startswith(f"error: {message}"), done.stderr.count("\n")) == (2, True, 1)
    assert run(recipe.with_name("table.sh"), "--help").stdout.startswith("The table of all systems ")


@CALLS
def test_the_table_compares_with_the_speech_reallm_at_the_same_delay_too(recipe: Path) -> None:
    exp = recipe.parent / "exp"
    decoded = "ctc.1/decode/test-child", "ctc.1/decode/test-child.chunk4", "speech_reallm.1/decode/test-child", "aed.1/decode/test-adult"
    for folder in decoded:
        (exp / folder).mkdir(parents=True)
        (exp / folder / "results.json").write_text("{}")
    made = [line.split(" ", 1) for line in calls(recipe.with_name("table.sh"), str(exp))]
    one, two, chunk = "exp/ctc.1/decode/test-child", "exp/speech_reallm.1/decode/test-child", "exp/ctc.1/decode/test-child.chunk4"
    assert [(Path(tool).name, options) for tool, options in made] == [
        ("results_table.py", "--mean exp/aed.1/decode/test-adult"),
        ("results_table.py", f"--mean --against speech_reallm {one} {two}"),
        ("delay_curve.py", f"--against speech_reallm --picture exp/curves/test-child.png {one} {two} {chunk}"),
    ]


@CALLS
def test_systems_that_are_there(recipe: Path) -> None:
    assert sorted(run(recipe, "--data", "here", "--systems", "x").stderr.split(": of ")[1].split()) == sorted(SYSTEMS)


README = (ROOT / "egs/speechocean762/README.md").read_text()
LAYERS = {"ctc": 8, "aed_large": 10}  # of the encoder; else 4
SMOOTHING = {"aed": 0.1, "aed_large": 0.1}  # of labels; else 0
BEAM = {"aed": 4, "aed_large": 4, "decoder_only": 4}  # of the search; else greedy


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of as many pieces as the recipe's."""
    tokenizer: Any = find("tokenizer", "sentencepiece")
    return Path(tokenizer.train([README], tmp_path_factory.mktemp("pieces") / "300.model", vocab_size=300).path)


def written(config: Config, key: str) -> dict[str, str]:
    """The values below a top-level key, all references replaced."""
    nodes = walk(YAML().load(config.text))
    return {
        ".".join(steps[1:]): str(getattr(node, "value", node))
        for steps, node in nodes
        if steps[:1] == (key,) and not isinstance(node, dict)
    }


def test_systems_differ_in_what_the_readme_says_and_in_nothing_else(pieces: Path) -> None:
    configs = {name: load(CONF / f"{name}.yaml", [f"tokenizer_path={pieces}"]) for name in SYSTEMS}
    systems = {name: built_on_meta(CONF / f"{name}.yaml", pieces) for name in SYSTEMS}
    own = systems["speech_reallm"]
    for name, system in systems.items():
        for key in ("data", "training"):
            mine, reference = ({k: v for k, v in written(configs[n], key).items() if "tokenizer" not in k} for n in (name, "speech_reallm"))
            assert mine == reference, f"{name}: {key}"
        assert arguments_of(system.frontend) == arguments_of(own.frontend)
        assert arguments_of(system.encoder) == {**arguments_of(own.encoder), "layers": LAYERS.get(name, 4)}
        assert arguments_of(system)["spec_augment"] == arguments_of(own)["spec_augment"]
        assert system.flush_periods * system.period_samples == 0.64 * 16000
        assert arguments_of(system).get("label_smoothing", 0.0) == SMOOTHING.get(name, 0.0)
        assert getattr(system, "beam", 1) == BEAM.get(name, 1)
        assert not hasattr(system, "searcher") or spec_of(system.searcher).name == "greedy"
        if streams(system):
            assert system.training_chunks == own.training_chunks
    assert "beam of 4" in README and "label smoothing of 0.1" in README


def test_sizes_are_those_that_the_readme_says(pieces: Path) -> None:
    rows = {
        cells[0]: cells[1:]
        for line in README.splitlines()
        if len(cells := [cell.strip() for cell in line.strip().strip("|").split("|")]) == 4
    }
    for name in SYSTEMS:
        system = built_on_meta(CONF / f"{name}.yaml", pieces)
        size = sum(parameter.numel() for parameter in system.parameters())
        assert rows[name][1:] == ["yes" if streams(system) else "no", f"{size / 1e6:.2f} M"]
