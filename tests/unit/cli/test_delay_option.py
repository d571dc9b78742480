"""``--delay``: seconds that words wait, of a model that was trained for several delays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from reallm.bundle import export
from reallm.contract.system import talkative
from reallm.data.cuts import read_cuts, write_cuts
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies.command import run
from tests.dummies.data import write_corpus


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of delays from 80 to 320 ms that sound very different."""

    class Several(SpeechReaLLM):
        @classmethod
        def tiny(cls) -> Any:
            tiny = SpeechReaLLM.tiny()
            parts = ("frontend", "encoder", "adapter", "decoder", "interleaver", "searcher", "tokenizer")
            system = SpeechReaLLM(**{name: getattr(tiny, name) for name in parts}, delay=2, training_delays=[1, 4])
            assert system.delay_embedding is not None
            system.delay_embedding.weight.data.mul_(50)
            return system

    folder = tmp_path_factory.mktemp("model") / "bundle"
    export(talkative(Several).float(), folder, {"license": "none", "training_data": "none"})
    return folder


def test_transcribe(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    noise = np.random.default_rng(0).standard_normal(12000) * np.repeat(np.random.default_rng(1).random(15), 800) * 0.3
    soundfile.write(tmp_path / "a.wav", noise, 8000)
    said = {}
    for seconds in ("0.08", "0.16", "0.32", None):
        assert run("transcribe", tmp_path / "a.wav", "--model", bundle, *(["--delay", seconds] if seconds else [])) == 0
        said[seconds] = capsys.readouterr().out
    assert said["0.16"] == said[None] and len(set(said.values())) > 1
    assert run("transcribe", tmp_path / "a.wav", "--model", bundle, "--delay", "0.4") == 2
    assert "trained for delays from 0.08 to 0.32 s, in steps of 0.08 s" in capsys.readouterr().err
    assert run("transcribe", tmp_path / "a.wav", "--delay", "0.4") == 2
    assert "trained for delays of 0 s alone" in capsys.readouterr().err


def test_decode(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    cuts = tmp_path / "cuts.jsonl.gz"
    corpus = write_corpus(tmp_path / "corpus", train_strings=8, epochs=1, dev_strings=4)
    write_cuts(list(read_cuts(corpus / "dev.jsonl.gz")), cuts)
    found = {}
    for seconds in (0.08, 0.32):
        out = tmp_path / str(seconds)
        assert run("decode", bundle, "--cuts", cuts, "--out", out, "--delay", seconds, "--compare-offline", "--rtf-utterances", 0) == 0
        results = json.loads((out / "results.json").read_text())
        assert results["settings"] == {"delay": seconds} and results["offline_mismatches"] == []
        found[seconds] = (out / "hyps.jsonl").read_text()
    assert found[0.08] != found[0.32]
    assert run("decode", bundle, "--cuts", cuts, "--out", tmp_path / "never", "--delay", 1) == 2
    assert "trained for delays from 0.08 to 0.32 s" in capsys.readouterr().err and not (tmp_path / "never").exists()
