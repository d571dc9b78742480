"""``--phrases FILE``: what a speaker may well say."""

import json
from pathlib import Path
from typing import Any

import soundfile

from reallm.bundle import export
from reallm.contract.system import talkative
from reallm.data.cuts import read_cuts, write_cuts
from reallm.systems.ctc import CTC
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies.command import run
from tests.dummies.data import write_corpus
from tests.dummies.spoken_digits import RATE, spoken


def test_transcribe_finds_a_digit_that_it_had_missed(tmp_path: Path, capsys: Any) -> None:
    file, names = tmp_path / "a.wav", tmp_path / "names.txt"
    names.write_text("two\n\n")

    def heard(*options: object) -> list[str]:
        assert run("transcribe", file, *options) == 0
        return str(capsys.readouterr().out).split()

    for _ in range(20):  # the synthesizer breathes anew each time: until a "two" is missed, as most are
        soundfile.write(file, spoken(("five", 0.1), ("three", 1.0), ("seven", 0.2), ("two", 0.2), ("two", 0.3)), RATE)
        missed = heard()
        if missed[-1] == "three":
            break
    found = heard("--phrases", names, "--phrase-bonus", 5.5)  # from 3 to 8 it did not matter
    assert (missed[-1], found[-1]) == ("three", "two")
    assert found[:-1] == missed[:-1], "no harm to the others"


def test_decode_says_with_which_phrases(tmp_path: Path) -> None:
    model, cuts, names = tmp_path / "bundle", tmp_path / "cuts.jsonl.gz", tmp_path / "names.txt"
    export(talkative(SpeechReaLLM).float(), model, {"license": "none", "training_data": "none"})
    corpus = write_corpus(tmp_path / "corpus", train_strings=8, epochs=1, dev_strings=4)
    write_cuts(list(read_cuts(corpus / "dev.jsonl.gz")), cuts)
    names.write_text("up xo\nho\n")
    found = {}
    for options in ((), ("--phrases", names, "--phrase-bonus", 40), ("--phrases", names, "--phrase-bonus", 40, "--beam", 2)):
        out = tmp_path / str(len(options))
        assert run("decode", model, "--cuts", cuts, "--out", out, "--compare-offline", "--rtf-utterances", 0, *options) == 0
        results = json.loads((out / "results.json").read_text())
        assert results["offline_mismatches"] == [] and results["settings"].get("phrases") == (2 if options else None)
        assert results["settings"].get("phrase_bonus") == (40 if options else None)
        found[len(options)] = [json.loads(line)["text"] for line in (out / "hyps.jsonl").read_text().splitlines()]
    assert found[0] != found[4] and found[0] != found[6]


def test_wrong_phrases_cost_one_line(tmp_path: Path, capsys: Any) -> None:
    audio, names, ctc = tmp_path / "none.wav", tmp_path / "names.txt", tmp_path / "ctc"
    export(CTC.tiny().eval(), ctc, {"license": "none", "training_data": "none"})
    for content, options, said in (
        (b"seven\nzebra\n", [], "names.txt: phrase 'zebra': 'zebra' (did you mean 'zero'?) in 'zebra' not known to"),
        (b"\n \n", [], "names.txt: it holds no phrase: write one a line"),
        (b"\xff\xfe", [], "names.txt: cannot be read as UTF-8 text"),
        (b"one", ["--phrase-bonus", 0], "phrase_bonus 0: log-probability that a word of a phrase is given, above 0"),
        (b"one", ["--model", ctc], "phrases: system 'ctc' has no search that can be biased towards them"),
    ):
        names.write_bytes(content)
        assert run("transcribe", audio, "--phrases", names, *options) == 2
        assert said in capsys.readouterr().err
    assert run("transcribe", audio, "--phrases", tmp_path / "missing.txt") == 2
    assert "missing.txt: cannot be read" in capsys.readouterr().err
    assert run("transcribe", audio, "--phrase-bonus", 2) == 2
    assert "--phrase-bonus 2: it is that of --phrases FILE: add it, or leave this out" in capsys.readouterr().err
