"""egs/digits/run.sh --system, with a `reallm` that only notes its calls."""

from pathlib import Path

import pytest

from reallm.config import load
from tests.dummies.recipe import ROOT, calls, run


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_the_system_with_an_llm(recipe: Path) -> None:
    python = recipe.parents[2] / "bin/python"
    python.write_text('#!/usr/bin/env bash\necho "python $*" >>"$CALLS"\n')
    python.chmod(0o755)
    made = calls(recipe, "--system", "speech_reallm_llm")
    config = next(i for i, line in enumerate(made) if line.startswith("python ") and "llm_config.py llama --out exp/llm" in line)
    assert made[config + 1].startswith("train conf/speech_reallm_llm.yaml --exp exp/speech_reallm_llm --init exp/ctc ")
    assert made[config + 1].endswith("--override llm=exp/llm")
    exported = [line for line in made if line.startswith("export ")]
    assert [line.split()[1] for line in exported] == ["exp/speech_reallm_llm", "exp/ctc"]
    assert made[-1].startswith("report exp/speech_reallm_llm ")
    for interleaver, fed in (("delayed_stream", True), ("chunk_eos", False)):
        exp = str(recipe.parent / f"exp.{interleaver}")
        (train,) = [
            line
            for line in calls(recipe, "--system", "speech_reallm_llm", "--interleaver", interleaver, "--exp", exp)
            if line.startswith("train ") and "speech_reallm_llm" in line
        ]
        assert train.endswith("--override blank_input=true") == fed


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_other_systems_have_no_llm_and_no_typos(recipe: Path) -> None:
    made = calls(recipe)
    assert not any("llm_config" in line or "llm=" in line for line in made)
    assert any(line.startswith("train conf/speech_reallm.yaml --exp exp/speech_reallm ") for line in made)
    for name in ("speech_realm", "ctc"):
        wrong = run(recipe, "--system", name, "--exp", "elsewhere")
        assert wrong.returncode == 2 and wrong.stderr.startswith(f"error: --system '{name}': of aed decoder_only ")
        assert "speech_reallm speech_reallm_llm" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
@pytest.mark.parametrize("system", ["aed", "decoder_only"])
def test_a_rival_that_hears_whole_strings_is_one_command(recipe: Path, system: str) -> None:
    base = str(recipe.parent / "exp")
    calls(recipe, "--exp", base)
    made = calls(recipe, "--from", base, "--exp", str(recipe.parent / "rival"), "--system", system)
    assert [line.split()[0] for line in made] == ["train", "export", "decode", "decode", "score", "score", "report"]
    assert made[0].startswith(f"train conf/{system}.yaml --exp rival/{system} --init exp/ctc --init-part frontend --init-part encoder ")
    assert "--override epochs=5" in made[0] and "delay" not in made[0]
    load(ROOT / f"egs/digits/conf/{system}.yaml", ["epochs=5", "vocal_tract=0.0", "seed=1"])
