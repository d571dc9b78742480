"""No memory left: one line that says what would fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import reallm.aligners.corpus
import reallm.cli.components
from reallm import device_memory
from reallm.bundle import export
from reallm.cli._memory import memory_told
from reallm.data.cuts import write_cuts
from reallm.errors import InputError
from reallm.streaming import decoding
from reallm.streaming.state import tensors
from reallm.systems.ctc import CTC
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies.command import run
from tests.dummies.level_strings import make_cut

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


def full(*_: Any, **__: Any) -> Any:
    raise FULL


@pytest.fixture(scope="module")
def system() -> SpeechReaLLM:
    return SpeechReaLLM.tiny().eval()


@pytest.mark.parametrize(
    ("jobs", "streams", "room", "fix"),  # room in streams beside the weights of one job
    [
        (1, 32, 1000.0, "32 streams: .*: take --streams 16"),
        (1, 32, 4.5, "32 streams: .*: take --streams 4 "),
        (4, 8, 1000.0, "4 jobs of 8 streams: .*: take --jobs 2 "),
        (1, 8, 0.5, "8 streams: .*: take --dtype bfloat16, which makes 0.00 GiB of the weights"),
        (1, 1, 1000.0, "1 streams: .*: take --dtype bfloat16"),
        (1, 8, -1e9, "8 streams: .*: take a smaller model, or a device with more memory"),
    ],
)
def test_what_would_fit_is_said(
    system: SpeechReaLLM, monkeypatch: pytest.MonkeyPatch, jobs: int, streams: int, room: float, fix: str
) -> None:
    weights = sum(p.numel() * p.element_size() for p in system.parameters())
    held = sum(t.numel() * t.element_size() for t in tensors(system.init_state(1)))
    free = max(-weights, (weights + room * held) / device_memory.ROOM - weights)
    monkeypatch.setattr(device_memory, "free_on", lambda device: free)
    with pytest.raises(InputError, match=f"not enough memory on cpu for {fix}"), memory_told(system, "cpu", jobs, streams, True):
        full()
    with pytest.raises(RuntimeError, match="shapes"), memory_told(system, "cpu", jobs, streams):
        raise RuntimeError("shapes")


def test_of_a_worker_of_a_cluster_no_numbers_are_said(system: SpeechReaLLM) -> None:
    for streams, fix in ((9, "fewer --streams than 9, or workers with more memory"), (0, "workers with more memory")):
        said = rf"^not enough memory on a worker of --dask tcp://there:1 \(CUDA out of memory. Tried to allocate 2.00 GiB.\): take {fix}$"
        with pytest.raises(InputError, match=said), memory_told(system, "cpu", 1, streams, dask="tcp://there:1"):
            full()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.startswith("reallm: error: not enough memory") and said.count("\n") == 1
    return said


def test_decoding_and_aligning_say_it(
    system: SpeechReaLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cuts([make_cut(tmp_path, number) for number in range(2)], tmp_path / "test.jsonl.gz")
    card = {"training_data": "none", "license": "CC0"}
    export(system, tmp_path / "bundle", card)
    export(CTC.tiny().eval(), tmp_path / "ctc", card)
    options = ["--cuts", tmp_path / "test.jsonl.gz", "--out", tmp_path / "out", "--rtf-utterances", 0]
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "stream_utterances", full)
        assert run("decode", tmp_path / "bundle", *options, "--streams", 9) == 2
        assert "for 9 streams: " in one_line(capsys)
        patch.setattr(SpeechReaLLM, "to", full)
        assert run("decode", tmp_path / "bundle", *options) == 2
        assert "for 32 streams: " in one_line(capsys)
        patch.setattr(CTC, "log_probs", full)
        assert run("align", tmp_path / "ctc", *options[:4], "--backend", "torch", "--batch-seconds", 40) == 2
        assert "for a batch of 2 utterances, " in (said := one_line(capsys)) and ": take --batch-seconds " in said and "(now 40); " in said
        patch.setattr(CTC, "to", full)
        assert run("align", tmp_path / "ctc", *options[:4]) == 2
        assert "for the model: " in one_line(capsys)
    assert run("decode", tmp_path / "bundle", *options, "--dtype", "bfloat16") == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["settings"] == {"dtype": "bfloat16"}
    assert run("decode", tmp_path / "bundle", *options, "--dtype", "half") == 2
    assert capsys.readouterr().err == "reallm: error: --dtype half: float32, bfloat16 or float16\n"


@pytest.mark.parametrize("error", [FULL, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])
def test_every_verb_says_it(error: RuntimeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise error

    monkeypatch.setattr(reallm.cli.components, "components", verb)
    assert run("components") == 2
    assert str(error).splitlines()[0] in one_line(capsys)
