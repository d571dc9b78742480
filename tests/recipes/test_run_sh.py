"""Every run.sh, with a `reallm` in place of the real one: what a user reads when a stage refuses."""

from pathlib import Path

import pytest

from tests.dummies.recipe import REFUSAL, run


def test_what_a_stage_refuses_is_one_line_and_exit_code_2(recipe: Path) -> None:
    calls = recipe.parents[2] / "calls"
    somewhere = ["--corpus" if "\ncorpus=" in recipe.read_text() else "--data", "somewhere"]
    if recipe.parent.name == "speechocean762":
        # A run for each call: one system, of which all calls are made alike.
        somewhere += ["--systems", "speech_reallm", "--seeds", "1", "--tests", "test-adult", "--chunks", "4"]
    assert run(recipe, *somewhere).returncode == 0
    for number in range(1, len(calls.read_text().splitlines()) + 1):
        calls.unlink()
        done = run(recipe, *somewhere, "--exp", str(recipe.parent / f"exp{number}"), refused=number)
        assert (done.returncode, done.stderr) == (2, f"{REFUSAL}\n"), f"call {number}: {calls.read_text().splitlines()[-1]}"
        assert len(calls.read_text().splitlines()) == number, "nothing follows"


def test_recordings_that_nobody_named(recipe: Path) -> None:
    done = run(recipe)
    if "download" in recipe.read_text():
        assert done.returncode == 0, "they are downloaded"
    else:
        assert (done.returncode, done.stderr) == (2, "error: no recordings: name their folder with --data DIR, or set REALLM_DATA\n")


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_a_transducer_may_be_the_teacher_of_the_digits(recipe: Path) -> None:
    exp, calls = recipe.parent / "exp", recipe.parents[2] / "calls"
    assert run(recipe, "--exp", str(exp), "--teacher", "rnnt").returncode == 0
    made = calls.read_text()
    assert made.count("conf/transducer.yaml") == 1 and f"--init {exp}/transducer " in made and f"align {exp}/transducer " in made
    assert f"--out {exp}/transducer/decode/test " in made and "/ctc" not in made
    again = run(recipe, "--exp", str(exp))
    assert (again.returncode, again.stderr.startswith(f"error: '{exp}' was made with teacher=rnnt, not teacher=ctc")) == (2, True)
    wrong = run(recipe, "--exp", str(exp) + "2", "--teacher", "hmm")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --teacher 'hmm': ctc or rnnt\n")
    base = ["--exp", str(exp) + "3", "--from", str(exp)]
    other = run(recipe, *base, "--teacher", "ctc")
    message = f"error: --teacher 'ctc': '{exp}' was made with 'rnnt', which is taken over: leave the option out\n"
    assert (other.returncode, other.stderr) == (2, message)
    calls.unlink()
    assert run(recipe, *base).returncode == 0
    assert f"--init {exp}/transducer " in calls.read_text()


@pytest.mark.parametrize("recipe", ["digits", "librispeech", "speechocean762"], indirect=True)
def test_a_run_whose_data_and_teacher_are_used(recipe: Path) -> None:
    exp, other = recipe.parent / "exp", recipe.parent / "other"
    somewhere = ["--corpus" if "\ncorpus=" in recipe.read_text() else "--data", "somewhere"]
    assert run(recipe, *somewhere, "--exp", str(exp), "--stop-stage", "tokenizer").returncode == 0
    early = run(recipe, "--exp", str(other), "--from", str(exp))
    assert (early.returncode, early.stderr) == (2, f"error: --from '{exp}': stage 'align' is not done there: run it first\n")
    assert run(recipe, *somewhere, "--exp", str(exp)).returncode == 0
    taken = "--test-utterances" if recipe.parent.name == "speechocean762" else "--teacher-epochs"
    wrong = run(recipe, "--exp", str(other), "--from", str(exp), taken, "7")
    assert (wrong.returncode, wrong.stderr.startswith(f"error: {taken} '7': '{exp}' was made with ")) == (2, True)
    assert not other.exists()
    assert run(recipe, "--exp", str(other), "--from", str(exp)).returncode == 0
    third = run(recipe, "--exp", str(exp) + "3", "--from", str(other))
    assert (third.returncode, f"--from '{other}'" in third.stderr) == (2, True)
    nothing = run(recipe, "--exp", str(other), "--from", str(exp), "--stop-stage", "align")
    assert (nothing.returncode, nothing.stderr) == (0, "nothing to do: stages '1' to 'align' are those of the run that --from names\n")


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_the_digits_are_aligned_by_what_was_trained_on_them(recipe: Path) -> None:
    exp, first, second = (recipe.parent / name for name in ("exp", "exp.self1", "exp.self2"))
    assert run(recipe, "--exp", str(exp)).returncode == 0
    (exp / "ctc").mkdir()
    for new, old in ((first, exp), (second, first)):
        (recipe.parents[2] / "calls").unlink()
        assert run(recipe, "--exp", str(new), "--from", str(exp), "--realign", str(old)).returncode == 0
        align, train, *_ = (recipe.parents[2] / "calls").read_text().splitlines()
        assert align.startswith(f"align {old}/speech_reallm --cuts {exp}/data/train.jsonl.gz --out {new}/align/train.jsonl.gz ")
        assert (
            f"--init {exp}/ctc --init-part frontend --init-part encoder --train {new}/align/train.jsonl.gz --dev {exp}/data/dev.jsonl.gz "
            in train
        )
    early = run(recipe, "--exp", f"{exp}3", "--from", str(exp), "--realign", f"{exp}4")
    assert (early.returncode, early.stderr.startswith(f"error: --realign '{exp}4': no trained Speech ReaLLM there")) == (2, True)
    late = run(recipe, "--exp", f"{exp}3", "--from", str(exp), "--realign", str(exp), "--stage", "train")
    assert (late.returncode, "stage 5 (train) needs stage 4 (align)" in late.stderr) == (2, True)


@pytest.mark.parametrize("recipe", ["TEMPLATE", "digits", "librispeech", "speechocean762"], indirect=True)
def test_options_of_a_stage_may_change_until_it_is_begun(recipe: Path) -> None:
    exp = ["--exp", str(recipe.parent / "exp"), "--corpus" if "\ncorpus=" in recipe.read_text() else "--data", "somewhere"]
    trained = "--pretrain-epochs" if recipe.parent.name == "speechocean762" else "--epochs"
    assert run(recipe, *exp, "--stop-stage", "tokenizer").returncode == 0
    assert run(recipe, *exp, "--stop-stage", "align", "--teacher-epochs", "7", "--delay", "0").returncode == 0
    again = run(recipe, *exp, "--stop-stage", "align", "--teacher-epochs", "6")
    assert (again.returncode, "was made with teacher_epochs=7, not teacher_epochs=6" in again.stderr) == (2, True)
    options = [*exp, "--teacher-epochs", "7", "--delay", "1"]
    (recipe.parents[2] / "calls").unlink()
    failed = run(recipe, *options, trained, "9", refused=1, status=1)
    assert failed.returncode == 1, "in the middle of a stage"
    changed = run(recipe, *options, trained, "8")
    assert (changed.returncode, f"{trained[2:].replace('-', '_')}=9, not " in changed.stderr) == (2, True)
    assert run(recipe, *options, trained, "9").returncode == 0


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_a_value_that_its_stage_refused_may_be_corrected(recipe: Path) -> None:
    exp = ["--exp", str(recipe.parent / "exp")]
    assert run(recipe, *exp, "--stop-stage", "tokenizer").returncode == 0
    (recipe.parents[2] / "calls").unlink()
    assert run(recipe, *exp, "--stop-stage", "teacher", "--teacher-epochs", "7", refused=1).returncode == 2
    assert run(recipe, *exp, "--stop-stage", "teacher", "--teacher-epochs", "6").returncode == 0


COMMON = [
    (["--epochs", "0"], "--epochs '0': a whole number from 1 on"),
    (["--teacher-epochs=0"], "--teacher-epochs '0': a whole number from 1 on"),
    (["--nj", "0"], "--nj '0': a whole number from 1 on"),
    (["--config", "wrong.sh"], "--seed 'three': a whole number from 0 on"),
    (["--delay", "9"], "--delay '9': at most "),
    (["--dask", "foo"], "--dask 'foo': the address of a scheduler, such as tcp://HOST:8786"),
]
OWN = {
    "digits": [
        (["--vocal-tract", "5"], "--vocal-tract '5': a number from 0 to 0.3"),
        (["--vocal-tract", "-0.1"], "--vocal-tract '-0.1': a number from 0 to 0.3"),
        (["--vocal-tract="], "--vocal-tract '': a number from 0 to 0.3"),
        (["--vocal-tract", "0.1x"], "--vocal-tract '0.1x': a number from 0 to 0.3"),
        (["--speeds", "0.9 1 3"], "--speeds '3': a number from 0.5 to 2"),
        (["--speeds", "*"], "--speeds '*': a number from 0.5 to 2"),
        (["--train-strings", "0"], "--train-strings '0': a whole number from 1 on"),
        (["--teacher", "hmm"], "--teacher 'hmm': ctc or rnnt"),
        (["--interleaver", "chunk"], "--interleaver 'chunk': blank or blank_fed or chunk_eos or delayed_stream"),
        (["--attention", "some"], "--attention 'some': window or full"),
        (["--attention", "full", "--system", "speech_reallm_llm"], "--attention 'full': speech_reallm_llm has no decoder whose window "),
        (["--training-delays", "3"], "--training-delays '3': the least and the most, such as '0 4'"),
        (["--training-delays", "1 3"], "--delay '0': not from 1 to 3, the --training-delays"),
        (["--training-delays", "0 9"], "--delay '9': at most 5"),
        (["--realign", "nowhere"], "--realign 'nowhere': needs --from, the run whose data and teacher are used"),
        (["--system", "ctc"], "--system 'ctc': of aed decoder_only speech_reallm speech_reallm_llm (ctc and transducer: --teacher)"),
        (["--system", "aed", "--delay", "1"], "--delay '1': aed does not answer in time, and has none: leave it out"),
        (["--system", "aed", "--attention", "full"], "--attention 'full': aed has no decoder whose window could be left out"),
    ],
    "flow_of_time": [
        (["--updates", "0"], "--updates '0': a whole number from 1 on"),
        (["--full-times", "0"], "--full-times '0': a whole number from 1 on"),
        (["--speeds", "0.9 3"], "--speeds '3': a number from 0.5 to 2"),
        (["--full-model", "nowhere"], "--full-model 'nowhere': no such folder: name a bundle, or an experiment with one"),
        (["--long-seconds", "-1"], "--long-seconds '-1': a number from 0 to 3600"),
        (["--long-seconds", ""], "--long-seconds '': name one at least"),
        (["--teacher", "nowhere"], "--teacher 'nowhere': no such folder: name the CTC experiment of egs/digits"),
        (["--model", "nowhere"], "--model 'nowhere': no such folder: name a bundle, or an experiment with one"),
    ],
    "TEMPLATE": [
        (["--teacher", "hmm"], "--teacher 'hmm': ctc or rnnt"),
        (["--init", "nowhere"], "--init 'nowhere': no such folder: name a bundle or an experiment"),
    ],
    "speechocean762": [
        (["--systems", "ctc lstm"], "--systems 'lstm': of aed aed_large ctc "),
        (["--tests", "test-adults"], "--tests 'test-adults': of test-adult, test-child, test-synthetic and test-digits"),
        (["--teacher", "hmm"], "--teacher 'hmm': ctc or rnnt"),
        (["--hours", "0"], "--hours '0': a number from 0.001 on"),
        (["--chunks", "4 x"], "--chunks 'x': a whole number from 4 to 1000"),
        (["--pretrain-epochs", "0"], "--pretrain-epochs '0': a whole number from 1 on"),
        (["--chunks", "4 6"], "--chunks '6': a multiple of 4 encoder frames, the token period"),
        (["--speeds", "0.9 1.0 1.1"], "--speeds '1.0': the recordings are trained on as they are, too: leave it out"),
        (["--seeds", "1.5"], "--seeds '1.5': a whole number from 0 to 1000000"),
        (["--seeds", ""], "--seeds '': name one at least"),
        (["--systems", " "], "--systems ' ': name one at least"),
        (["--conf", "nowhere"], "--conf: no such folder "),
        (["--text", "nowhere"], "--text 'nowhere': no such folder"),
        (["--tunables", "time_jitter"], "--tunables 'time_jitter': KEY=VALUE, such as layers=4"),
    ],
    "librispeech": [
        (["--train-sets", "50"], "--train-sets '50': 100 or 460 or 960"),
        (["--synthetic", "0"], "--synthetic '0': a number from 0.001 on"),
        (["--parts", "test-clean test-claen"], "--parts 'test-claen': of dev-clean, dev-other, test-clean and test-other"),
        (["--device", "gpu"], "--device 'gpu': cpu or cuda"),
        (["--alignments", "nowhere"], "--alignments 'nowhere': no such folder"),
        (["--features", "cached"], "--features 'cached': online or stored"),
        (["--parts", ""], "--parts '': name one at least"),
        (["--conf", "nowhere"], "--conf: no such folder "),
        (["--system", "speech_reallm_llama2_7b"], "--system 'speech_reallm_llama2_7b': of aed aed_240m ctc "),
        (["--tunables", "stride"], "--tunables 'stride': KEY=VALUE, such as stride=6"),
        (["--tunables", "epochs=3"], "--tunables 'epochs=3': other options set epochs: see --help"),
        (["--system", "aed", "--tunables", "stride=3"], "--tunables 'stride=3': "),
        (["--system", "aed", "--delay", "9"], "--delay '9': aed has none: leave it out"),
        (["--alignments", "."], "--alignments '.': no *.ctm, *.TextGrid or *.alignment.txt in it"),
        (["--corpus", "here", "--synthetic", "1"], "--corpus 'here': --synthetic makes the corpus: give one of them"),
        (["--eval-utterances", "9"], "--eval-utterances '9': of what --synthetic speaks: give that too"),
        (["--text", "nowhere", "--synthetic", "1"], "--text 'nowhere': no such folder"),
    ],
}


def test_an_option_out_of_its_range_is_told_before_the_first_stage(recipe: Path) -> None:
    recipe.with_name("wrong.sh").write_text("seed=three\n")
    text = recipe.read_text()
    known = {options[0]: "\n" + options[0].strip("-").partition("=")[0].replace("-", "_") + "=" for options, _ in COMMON}
    common = [(options, message) for options, message in COMMON if options[0] == "--config" or known[options[0]] in text]
    for options, message in common + OWN.get(recipe.parent.name, []):
        done = run(recipe, *options)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1, (options, done)
    assert not (recipe.parents[2] / "calls").exists() and not (recipe.parent / "exp").exists()


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_the_digits_are_interleaved_in_another_way(recipe: Path) -> None:
    exp = recipe.parent / "exp"
    assert run(recipe, "--exp", str(exp), "--interleaver", "chunk_eos", "--training-delays", "0 4").returncode == 0
    made = (recipe.parents[2] / "calls").read_text()
    assert f"train {exp}/speech_reallm.yaml " in made and "--override training_delays=[0,4]" in made
    swapped = (exp / "speech_reallm.yaml").read_text()
    assert f"interleaver: !include:{recipe.parent}/conf/../../../hparams/interleaver/chunk_eos.yaml" in swapped
    assert swapped.count(f"!include:{recipe.parent}/conf/../../../hparams/") == swapped.count("!include:")


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
@pytest.mark.parametrize("interleaver", ["blank", "delayed_stream"])
def test_the_decoder_of_the_digits_attends_to_all(recipe: Path, interleaver: str) -> None:
    exp = recipe.parent / "exp"
    assert run(recipe, "--exp", str(exp), "--attention", "full", "--interleaver", interleaver).returncode == 0
    assert f"train {exp}/speech_reallm.yaml " in (recipe.parents[2] / "calls").read_text()
    swapped = (exp / "speech_reallm.yaml").read_text()
    assert f"decoder: !include:{recipe.parent}/conf/../../../hparams/decoder/llama_full.yaml" in swapped and "llama_short" not in swapped
    assert f"/hparams/interleaver/{interleaver}.yaml" in swapped


@pytest.mark.parametrize("recipe", ["digits"], indirect=True)
def test_options_at_the_ends_of_their_ranges(recipe: Path) -> None:
    done = run(recipe, "--vocal-tract", "3e-1", "--speeds", "0.5 2", "--delay", "5", "--seed", "08", "--stop-stage", "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--speed 0.5 --speed 2" in (recipe.parents[2] / "calls").read_text()
