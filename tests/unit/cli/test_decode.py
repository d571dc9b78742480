"""``reallm decode`` and ``reallm score`` on strings of levels, end to end."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse.utils import fastcopy

import reallm.bundle
import reallm.metrics.provenance
from reallm.data.cuts import load_audio, read_cuts, write_cuts
from reallm.errors import InputError
from reallm.streaming import decoding
from reallm.streaming.measurement import real_time_factor
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.simulation import stream_utterances
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.command import run
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut
from tests.dummies.recognizer import LevelSystem, say

RESULT_KEYS = {  # of every results.json
    *("system", "corpus", "split", "parameters", "wer", "wer_ci95", "errors", "words", "insertions", "deletions", "substitutions"),
    *("emission_delay_ms", "final_delay_ms", "word_start_error_ms", "word_end_error_ms", "confidence_auc", "response_cap_hits"),
    *("rtf", "seconds_of_audio", "alignment_backend", "git", "seed"),
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    write_cuts([make_cut(tmp_path, number) for number in range(12)], tmp_path / "test.jsonl.gz")
    (tmp_path / "corpus.json").write_text(json.dumps({"corpus": "levels", "real": False, "licence": "CC0"}))
    return tmp_path / "test.jsonl.gz"


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    with registered_level_system():
        yield write_level_bundle(tmp_path / "bundle")


def test_decode_and_score(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert run("decode", bundle, "--cuts", manifest, "--out", out, "--streams", 5, "--compare-offline", "--rtf-utterances", 2) == 0
    assert "WER 0.00 %" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert not RESULT_KEYS - results.keys()
    assert (results["system"], results["split"], results["wer"], results["words"]) == ("levels", "test", 0.0, 33)
    assert results["corpus"] == {"name": "levels", "kind": "SYNTHETIC speech", "licence": "CC0"}
    assert results["offline_mismatches"] == []
    # A level is known two frames of 50 ms into the silence at the latest, and a chunk is 300 ms.
    assert 0 < results["emission_delay_ms"]["mean"] < 400
    assert abs(results["word_end_error_ms"]["mean"]) < 60
    assert 0 < results["rtf"] < 5
    hyps = [json.loads(line) for line in (out / "hyps.jsonl").read_text().splitlines()]
    assert [h["id"] for h in hyps] == [f"string-{n:02}" for n in range(12)]
    assert all(h["text"] == h["ref"] for h in hyps)
    assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--out", tmp_path / "again.json") == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert {**again, "git": None} == {**results, "git": None}


def test_int8_weights_and_compiled_layers(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    """Options of the decoding, which the results name; workers of this machine have them too."""
    options = ["--cuts", manifest, "--streams", 5, "--rtf-utterances", 1, "--int8", "--compiled", "--compare-offline"]
    found = {}
    for jobs in (1, 2):
        out = tmp_path / f"jobs-{jobs}"
        assert run("decode", bundle, *options, "--jobs", jobs, "--out", out) == 0
        assert "WER 0.00 %" in capsys.readouterr().out
        found[jobs] = json.loads((out / "results.json").read_text())
        assert found[jobs]["settings"] == {"int8": True, "compiled": True} and found[jobs]["offline_mismatches"] == []
    assert run("decode", bundle, "--cuts", manifest, "--out", tmp_path / "plain") == 0
    plain = json.loads((tmp_path / "plain" / "results.json").read_text())
    assert plain["settings"] == {} and plain["parameters"] == found[1]["parameters"] == found[2]["parameters"] > 0
    capsys.readouterr()
    assert run("decode", bundle, *options, "--dask", "tcp://127.0.0.1:1", "--out", tmp_path / "other") == 2
    assert "--compiled is for the processor of this machine" in capsys.readouterr().err


def test_cuts_without_words_are_decoded_and_not_scored(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    options = ["--cuts", manifest, "--out", out, "--rtf-utterances", 0, "--limit", 3]
    assert run("decode", bundle, *options) == 0
    texts = [json.loads(line)["text"] for line in (out / "hyps.jsonl").read_text().splitlines()]
    cuts = list(read_cuts(manifest))[:3]
    write_cuts(
        [cuts[0].map_supervisions(lambda s: s.transform_text(lambda text: "")), *(fastcopy(c, supervisions=[]) for c in cuts[1:])], manifest
    )
    capsys.readouterr()
    assert run("decode", bundle, *options) == 0
    said = f"{manifest} holds no words to score against: 3 utterances were decoded, and not scored\n{out / 'hyps.jsonl'}\n"
    assert capsys.readouterr().out == said
    assert [json.loads(line)["text"] for line in (out / "hyps.jsonl").read_text().splitlines()] == texts
    assert sorted(path.name for path in out.iterdir()) == ["decode.json", "hyps.jsonl"], "those of an older decoding are gone"


def test_one_of_so_many_is_decoded_and_scored_alone(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    options = ["--cuts", manifest, "--out", out, "--rtf-utterances", 0]
    assert run("decode", bundle, *options, "--every", 5) == 0
    assert [json.loads(line)["id"] for line in (out / "hyps.jsonl").read_text().splitlines()] == ["string-00", "string-05", "string-10"]
    results = json.loads((out / "results.json").read_text())
    assert (results["wer"], results["every"]) == (0.0, 5)
    assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--out", tmp_path / "again.json") == 0
    assert json.loads((tmp_path / "again.json").read_text())["words"] == results["words"]
    assert run("decode", bundle, *options, "--every", 4, "--limit", 3) == 0, "which is another decoding, of as many"
    assert [json.loads(line)["id"] for line in (out / "hyps.jsonl").read_text().splitlines()] == ["string-00", "string-04", "string-08"]


def test_times_that_are_not_known_have_no_errors(bundle: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LevelSystem, "times_known", False, raising=False)
    out = tmp_path / "out"
    assert run("decode", bundle, "--cuts", manifest, "--out", out, "--rtf-utterances", 0, "--limit", 3) == 0
    assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--out", out / "again.json") == 0
    for name in ("results.json", "again.json"):
        results = json.loads((out / name).read_text())
        assert results["word_start_error_ms"] is results["word_end_error_ms"] is None
        assert results["emission_delay_ms"]["mean"] > 0 and results["wer"] == 0.0


def test_other_rates_and_pieces_give_the_same_text(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    for number, (rate, piece) in enumerate([(16000, 20), (44100, 160), (48000, 1000), (8000, 7.3)]):
        out = tmp_path / str(number)
        options = ["--input-rate", rate, "--piece-ms", piece, "--rtf-utterances", 0, "--limit", 4, "--compare-offline"]
        assert run("decode", bundle, "--cuts", manifest, "--out", out, *options) == 0
        results = json.loads((out / "results.json").read_text())
        assert (results["wer"], results["offline_mismatches"], results["input_rate"]) == (0.0, [], rate)
        assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--out", out / "again.json") == 0


def test_settings_change_components(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    from reallm.bundle import export
    from reallm.systems.speech_reallm import SpeechReaLLM

    export(SpeechReaLLM.tiny().eval(), tmp_path / "tiny", {"training_data": "none", "license": "CC0"})
    options = ["--cuts", manifest, "--out", tmp_path / "out", "--limit", 2, "--rtf-utterances", 0]
    assert run("decode", tmp_path / "tiny", *options, "--set", "searcher.blank_penalty=-100") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"] == {"searcher.blank_penalty": -100.0}
    assert results["deletions"] == results["words"]
    assert run("decode", tmp_path / "tiny", *options, "--set", "searcher.blank_penalty=100") == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["response_cap_hits"] > 0
    capsys.readouterr()
    for setting, message in (
        ("searcher.blank_penalti=1", "did you mean 'blank_penalty'"),
        ("sercher.blank_penalty=1", "did you mean 'searcher'"),
        ("decoder.window=3", "'decoder' is trained with its settings"),
        ("blank_penalty=1", "PART.NAME=NUMBER"),
        ("searcher.max_symbols=1.5", "'1.5' is not a whole number"),
        ("searcher.max_symbols=0", "max_symbols 0: a response needs room"),
        ("searcher.blank_penalty=nan", "'nan' is not a finite number"),
    ):
        assert run("decode", tmp_path / "tiny", *options, "--set", setting) == 2
        assert message in capsys.readouterr().err


def test_a_beam_is_chosen_when_decoding(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    from reallm.bundle import export
    from reallm.systems.speech_reallm import SpeechReaLLM

    export(SpeechReaLLM.tiny().eval(), tmp_path / "tiny", {"training_data": "none", "license": "CC0"})
    options = ["--cuts", manifest, "--out", tmp_path / "out", "--limit", 2, "--rtf-utterances", 0]
    assert run("decode", tmp_path / "tiny", *options, "--beam", 3, "--set", "searcher.max_pending=9", "--compare-offline") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["settings"] == {"beam": 3, "searcher.max_pending": 9}
    assert results["offline_mismatches"] == []
    capsys.readouterr()
    assert run("decode", tmp_path / "tiny", *options, "--set", "searcher.max_pending=9") == 2
    assert "it has max_symbols, blank_penalty" in capsys.readouterr().err
    assert run("decode", bundle, *options, "--beam", 3) == 2
    assert "--beam 3: system 'levels'" in capsys.readouterr().err


def test_the_n_best_texts_are_written_when_asked_for(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    from reallm.bundle import export
    from reallm.systems.aed import AED
    from reallm.systems.speech_reallm import SpeechReaLLM

    torch.manual_seed(0)
    for name, system in (("tiny", SpeechReaLLM.tiny()), ("aed", AED.tiny())):
        export(system.eval(), tmp_path / name, {"training_data": "none", "license": "CC0"})
    out = tmp_path / "out"
    options = ["--cuts", manifest, "--out", out, "--limit", 2, "--rtf-utterances", 0]
    plain = [*options, "--beam", 4, "--set", "searcher.max_symbols=2"]
    assert run("decode", tmp_path / "tiny", *plain) == 0
    without, lines = json.loads((out / "results.json").read_text()), (out / "hyps.jsonl").read_text().splitlines()
    assert run("decode", tmp_path / "tiny", *plain, "--n-best", 3) == 0
    results = json.loads((out / "results.json").read_text())
    assert {**results, "git": None} == {**without, "git": None, "n_best": 3, "oracle_wer": results["oracle_wer"]}
    assert results["oracle_wer"] <= results["wer"]
    for line, before in zip((out / "hyps.jsonl").read_text().splitlines(), map(json.loads, lines), strict=True):
        found = json.loads(line)
        n_best = found.pop("n_best")
        assert found == before
        assert len(n_best) == 3 and n_best[0]["text"] == found["text"]
        assert [set(one) for one in n_best] == [{"text", "score"}] * 3
        assert n_best[0]["score"] > n_best[1]["score"] > n_best[2]["score"]
    assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--out", tmp_path / "again.json") == 0
    assert {**json.loads((tmp_path / "again.json").read_text()), "git": None} == {**results, "git": None}
    capsys.readouterr()
    for model, arguments, message in (
        ("tiny", ["--n-best", 3], "--n-best 3 is for a beam search: add --beam 3"),
        ("tiny", ["--n-best", 5, "--beam", 4], "--n-best 5: --beam 4 keeps 4 texts at most: raise it to 5"),
        ("aed", ["--n-best", 2, "--beam", 3], "--n-best 2: the search of system 'aed' gives its best text alone: leave it out"),
    ):
        assert run("decode", tmp_path / model, *options[:2], "--out", tmp_path / "none", *arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_missing_things_are_named_and_nothing_is_written(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    for arguments, message in (
        ([bundle, "--cuts", tmp_path / "none.jsonl.gz"], "no manifest"),
        ([tmp_path / "none", "--cuts", manifest], "neither a bundle"),
        ([bundle, "--cuts", manifest, "--device", "warp"], "--device warp"),
    ):
        assert run("decode", *arguments, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_audio_that_is_gone_is_one_line_and_nothing_is_written(bundle: Path, manifest: Path, tmp_path: Path, capsys: Any) -> None:
    gone = sorted(tmp_path.glob("*.wav"))[7]
    gone.unlink()
    assert run("decode", bundle, "--cuts", manifest, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"no audio file {gone}: put it back, or make the manifest again" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Mortal(LevelSystem):
    """Its first chunk in another process than that which made it is the end of that process, once."""

    def __init__(self, tokenizer: CharacterTokenizer, marker: Path) -> None:
        super().__init__(tokenizer)
        self.marker, self.home = marker, os.getpid()

    def step(self, *arguments: Any) -> Any:
        if os.getpid() != self.home and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(*arguments)


def test_whoever_decodes_the_hypotheses_are_the_same(
    bundle: Path, manifest: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(decoding, "SHARD", 4)
    options = ["--cuts", manifest, "--streams", 1, "--rtf-utterances", 1, "--compare-offline"]
    assert run("decode", bundle, *options, "--out", tmp_path / "alone") == 0
    assert run("decode", bundle, *options, "--out", tmp_path / "two", "--jobs", 2) == 0

    system = Mortal(CharacterTokenizer.tiny(tmp_path), tmp_path / "killed").eval()
    system.component_spec = reallm.bundle.load_system(bundle).component_spec
    monkeypatch.setattr(reallm.bundle, "load_system", lambda model, average: system)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        assert run("decode", bundle, *options, "--out", tmp_path / "cluster", "--dask", address) == 0
    assert (tmp_path / "killed").exists()
    capsys.readouterr()

    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("alone", "two", "cluster")}
    for name, who in (("alone", {"jobs": 1}), ("two", {"jobs": 2}), ("cluster", {"dask": address})):
        assert (tmp_path / name / "hyps.jsonl").read_bytes() == (tmp_path / "alone/hyps.jsonl").read_bytes()
        own = {"rtf": results[name]["rtf"], "git": results[name]["git"]}
        assert {"jobs": None, **results[name]} == {**results["alone"], "jobs": None, **who, **own}
        assert not (tmp_path / f".{name}.parts").exists()
    assert run("decode", bundle, *options, "--out", tmp_path / "both", "--dask", address, "--jobs", 2) == 2
    assert "choose one" in capsys.readouterr().err


def test_decoding_goes_on_where_it_was_and_not_with_other_settings(
    bundle: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SHARD", 4)
    options = ["--cuts", manifest, "--streams", 1, "--rtf-utterances", 0]
    assert run("decode", bundle, *options, "--out", tmp_path / "whole") == 0
    out, parts = tmp_path / "out", tmp_path / ".out.parts"
    decoded: list[str] = []
    gone = "string-09"

    def load(cut: Any, rate: int) -> Any:
        if cut.id == gone:
            raise InputError(f"{gone} is gone")
        decoded.append(cut.id)
        return load_audio(cut, rate)

    monkeypatch.setattr(decoding, "load_audio", load)
    assert run("decode", bundle, *options, "--out", out) == 2
    assert len(list(parts.glob("*.gz"))) == 2 and not out.exists()
    decoded.clear()
    gone = ""
    assert run("decode", bundle, *options, "--out", out) == 0
    assert sorted(decoded) == [f"string-{number:02}" for number in range(8, 12)]
    assert (out / "hyps.jsonl").read_bytes() == (tmp_path / "whole/hyps.jsonl").read_bytes()

    shutil.rmtree(out)
    gone = "string-09"
    assert run("decode", bundle, *options, "--out", out) == 2
    decoded.clear()
    gone = ""
    assert run("decode", bundle, *options, "--out", out, "--piece-ms", 40) == 0
    assert len(decoded) == 12


def test_what_is_finished_stays_until_something_is_different(
    bundle: Path, manifest: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decoded = tmp_path / "out", []

    def load(cut: Any, rate: int) -> Any:
        decoded.append(cut.id)
        return load_audio(cut, rate)

    def decode(*options: object, model: Path = bundle, fresh: bool) -> None:
        decoded.clear()
        before = {path.name: path.stat().st_mtime_ns for path in out.glob("*")}
        assert run("decode", model, "--cuts", manifest, "--out", out, "--rtf-utterances", 0, "--limit", 3, *options) == 0
        assert len(set(decoded)) == (3 if fresh else 0), options
        said = capsys.readouterr().out
        assert fresh == (said != f"{out} is finished, with the same model, manifest and options: remove it to decode again\n")
        assert fresh or before == {path.name: path.stat().st_mtime_ns for path in out.glob("*")}

    monkeypatch.setattr(decoding, "load_audio", load)
    monkeypatch.setattr(reallm.metrics.provenance, "git_revision", lambda: "before")
    decode(fresh=True)
    decode(fresh=False)
    monkeypatch.setattr(reallm.metrics.provenance, "git_revision", lambda: "after")
    decode(fresh=True)
    decode(fresh=False)
    decode("--jobs", 1, fresh=False)
    # As a recipe's next stage scores it: its results stay, and say nothing of the key.
    assert run("score", out / "hyps.jsonl", "--cuts", manifest, "--normalize", "librispeech", "--out", out / "results.json") == 0
    assert "key" not in json.loads((out / "results.json").read_text())
    capsys.readouterr()
    decode(fresh=False)
    for changed in (["--piece-ms", 40], ["--streams", 2], ["--compare-offline"]):
        decode(*changed, fresh=True)
        decode(*changed, fresh=False)
    decode(fresh=True)
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    decode(model=copy, fresh=True)
    write_cuts([*read_cuts(manifest)][:-1], manifest)
    decode(model=copy, fresh=True)
    decode(model=copy, fresh=False)
    for name in ("hyps.jsonl", "results.json", "decode.json"):
        (out / name).unlink()
        decode(model=copy, fresh=True)


def test_a_decoding_that_was_killed_while_it_was_written_is_not_finished(
    bundle: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reallm.metrics.results

    options = ["decode", bundle, "--cuts", manifest, "--out", tmp_path / "out", "--rtf-utterances", 0, "--limit", 2]
    assert run(*options) == 0
    with monkeypatch.context() as patch:
        patch.setattr(reallm.metrics.results, "score", lambda scored: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*options, "--piece-ms", 40)
    assert (tmp_path / "out/hyps.jsonl").is_file() and not (tmp_path / "out/decode.json").exists()


def test_the_delay_that_a_system_was_trained_with_is_known(manifest: Path, tmp_path: Path) -> None:
    from reallm.bundle import export
    from reallm.systems.speech_reallm import SpeechReaLLM

    system = SpeechReaLLM.tiny().eval()
    export(system, tmp_path / "tiny", {"training_data": "none", "license": "CC0"})
    out = tmp_path / "out"
    assert run("decode", tmp_path / "tiny", "--cuts", manifest, "--out", out, "--limit", 1, "--rtf-utterances", 0) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["delay"] == system.delay and "training_delays" not in results
    assert results["token_period"] == system.period_samples / system.sample_rate


def test_emission_times_are_those_of_one_live_stream() -> None:
    system = LevelSystem(CharacterTokenizer.tiny()).eval()
    audios = {seed: say([1 + seed % 6, 2, 3], seed=seed, trailing=0.0) for seed in range(9)}
    together = {
        key: (hypothesis.words, seconds)
        for key, hypothesis, seconds in stream_utterances(Recognizer(system, 4), ((k, a, 8000) for k, a in audios.items()))
    }
    for key, audio in audios.items():
        stream = Recognizer(system).stream()
        for begin in range(0, len(audio), 160):
            stream.accept_waveform(audio[begin : begin + 160], 8000)
            stream.result()
        assert together[key] == (stream.finish().words, len(audio) / 8000)


def test_the_real_time_factor_is_that_of_one_pass_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(LevelSystem):
        steps = 0

        def step(self, *arguments: Any) -> Any:
            Counting.steps += 1
            return super().step(*arguments)

    monkeypatch.setattr(time, "process_time", lambda: Counting.steps)  # a step takes a second
    system = Counting(CharacterTokenizer.tiny()).eval()
    audio = say([1, 2])
    stream = Recognizer(system).stream()
    stream.accept_waveform(audio, 8000)
    stream.finish()
    once, seconds = Counting.steps, len(audio) / 8000
    assert real_time_factor(system, [("a", audio, 8000), ("b", audio, 8000)]) == pytest.approx(2 * once / (2 * seconds))
