"""tools/bench: each comparison runs with tiny models, writes what it measured, and refuses to compare what is not alike."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

BENCH = Path(__file__).parents[2] / "tools/bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs a benchmark with options; what it wrote."""
    monkeypatch.syspath_prepend(str(BENCH))

    def run(name: str, *options: object) -> Any:
        file = tmp_path / f"{name}.json"
        given = [BENCH / f"{name}.py", "--config", "tiny", "--repeats", 2, "--json", file, *options]
        monkeypatch.setattr(sys, "argv", [str(part) for part in given])
        runpy.run_path(str(BENCH / f"{name}.py"), run_name="__main__")
        return json.loads(file.read_text())

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """The functions of a benchmark, without running it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return lambda name: type("Script", (), runpy.run_path(str(BENCH / f"{name}.py")))


def column(found: Any, name: str) -> list[Any]:
    return [row[name] for row in found["rows"]]


def test_stream(bench: Callable[..., Any]) -> None:
    found = bench("stream", "--chunks", 12, "--seconds", 2, "--warm-up", 1)
    assert column(found, "side") == ["reallm", "speculative", "speculative int8", "transformers", "speechbrain"]
    reads = column(found, "reads_a_second")
    assert reads[1] == reads[2] < 0.8 * reads[0] == 0.8 * reads[3]
    for row in found["rows"]:
        assert 0 < row["ms_a_second"]["least"] <= row["ms_a_second"]["median"] <= row["ms_a_second"]["most"]
        assert row["limit_ms_a_second"] > 0 and row["p50_ms"] <= row["p99_ms"]
    assert column(found, "ratio")[0] == 1
    assert found["command"].startswith("tools/bench/stream.py --config tiny")
    assert found["machine"]["threads"] == 1 and found["date"].startswith("20") and found["settings"]["chunks"] == [12]


def test_stream_says_as_many_tokens_a_second_on_both_sides(script: Callable[[str], Any]) -> None:
    from _models import speaking  # type: ignore[import-not-found]

    for inputs in (25.0, 1 / 0.24):
        answers = speaking(inputs)
        tokens, blanks = int(answers.sum()), int((~answers).sum())
        assert tokens / blanks * inputs == pytest.approx(4, rel=0.1)


def test_stream_refuses_models_of_unlike_sizes_or_answers(bench: Callable[..., Any], script: Callable[[str], Any]) -> None:
    from reallm.decoders.llama import LlamaDecoder
    from reallm.errors import InputError

    stream, one, other = script("stream"), LlamaDecoder.tiny().eval(), LlamaDecoder.tiny().eval()
    with pytest.raises(InputError, match="answers otherwise"):
        stream.same_logits(one, other)
    arguments = type("Arguments", (), {"config": "80m"})
    with pytest.raises(InputError, match="unlike sizes"):
        stream.same_size(arguments, {"a": torch.nn.Linear(10, 10), "b": torch.nn.Linear(10, 12)})


def test_search(bench: Callable[..., Any]) -> None:
    found = bench("search", "--tokens", 12, "--rows", 2, "--beam", 3)
    assert list(zip(column(found, "side"), column(found, "beam"), strict=True)) == [
        *(("reallm", 1), ("transformers", 1), ("reallm", 3), ("transformers", 3))
    ]
    assert all(row["tokens_a_second"]["median"] > 0 for row in found["rows"])


def test_search_needs_as_long_a_window(bench: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench("search", "--tokens", 128)
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: --tokens 128: generate has no window")


def test_align(bench: Callable[..., Any]) -> None:
    found = bench("align")
    assert column(found, "side")[-1] == "forced_align" and column(found, "side")[0].startswith("torch ")
    assert "k2" in str(column(found, "side")) or "not measured" in found["notes"]["k2"]
    assert column(found, "ratio")[-1] == 1


def test_train(bench: Callable[..., Any]) -> None:
    found = bench("train", "--batch-seconds", 8, "--utterances", 60, "--buckets", 4)
    assert column(found, "side") == ["reallm", "speechbrain"]
    assert 0 < found["notes"]["padding_percent"] < 30
    for row in found["rows"]:
        parts = sum(row[f"{part}_ms"]["median"] for part in ("encoder", "loss", "backward"))
        assert found["notes"]["batch_seconds_of_audio"] / row["audio_seconds_a_second"]["median"] * 1000 == pytest.approx(parts, rel=0.5)
        assert row["memory_mb"] > 0


def test_kept(bench: Callable[..., Any], script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (bench("kept", "--systems", "speech_reallm", "--seconds", seconds)["rows"][0] for seconds in (1, 2))
    assert 0 < 0.5 * long["mb_a_second"] < short["mb_a_second"] < 2 * long["mb_a_second"], "a second's, whatever the length"
    with pytest.raises(SystemExit):
        bench("kept", "--systems", "lstm")
    assert "--systems 'lstm': of speech_reallm, " in capsys.readouterr().err
    linear, inputs = torch.nn.Linear(3, 5), torch.randn(7, 3)
    kept = script("_measure").kept_for_backward(linear, lambda: (linear(inputs) ** 2).sum())
    assert kept == 4 * (7 * 3 + 7 * 5), "the inputs, and what is squared; no weights"


def test_streams(bench: Callable[..., Any], script: Callable[[str], Any]) -> None:
    found = bench("streams", "--seconds", 0.6, "--warm-up", 1, "--most", 2)
    assert column(found, "streams")[0] == 1 and found["notes"]["streams_by_arithmetic"] > 1
    assert found["notes"]["streams"] in (0, 1, 2)


@pytest.mark.parametrize("most", [1, 7, 40, 41, 1000])
def test_streams_are_bisected(script: Callable[[str], Any], most: int) -> None:
    tried: list[int] = []

    def holds(batch: int) -> bool:
        tried.append(batch)
        return batch <= 40

    best, failed = script("streams").bisect(holds, 1, most, 0.05)
    assert best <= 40 and max(tried) <= most
    if most <= 40:
        assert (best, failed) == (most, None)
    else:
        assert failed is not None and best < failed and failed - best <= max(1, 0.05 * failed) and failed > 40
    assert len(tried) < 16


def test_streams_that_never_hold(script: Callable[[str], Any]) -> None:
    assert script("streams").bisect(lambda batch: False, 4, 64, 0.1) == (0, 1)


def test_sides_alternate_after_a_turn_that_warms_up(script: Callable[[str], Any]) -> None:
    from _measure import Spread, alternate  # type: ignore[import-not-found]

    order: list[str] = []
    found = alternate({"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"] and found == {"a": [3, 6], "b": [4, 5]}
    assert str(Spread.of([3.0, 1.0, 2.0], 1000)) == "2000 (1000–3000)"


def test_an_accelerator_that_is_not_there(bench: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as end:
        bench("align", "--device", "cuda")
    assert end.value.code == 2 and "no such accelerator" in capsys.readouterr().err
