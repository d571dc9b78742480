"""tools/bench: each comparison runs with tiny models, writes what it measured, and refuses to compare what is not alike."""

import json
import runpy
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reallm.bundle import export
from reallm.data.cuts import write_cuts
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies.level_bundle import METADATA
from tests.dummies.level_strings import make_cut

BENCH = Path(__file__).parents[2] / "tools/bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs a benchmark with options; what it wrote."""
    monkeypatch.syspath_prepend(str(BENCH))

    def run(name: str, *options: object, config: str | None = "tiny") -> Any:
        file = tmp_path / f"{name}.json"
        size = [] if config is None else ["--config", config]
        given = [BENCH / f"{name}.py", *size, "--repeats", 2, "--json", file, *options]
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


def test_stream(bench: Callable[..., Any], tmp_path: Path) -> None:
    found = bench("stream", "--chunks", 12, "--seconds", 2, "--warm-up", 1, "--profile", tmp_path / "operators.txt")
    kinds = ["compiled", "int8", "compiled int8"]
    ours = ["reallm", *kinds, "speculative", *(f"speculative {kind}" for kind in kinds)]
    assert column(found, "side") == [*ours, "transformers", "speechbrain"]
    reads = dict(zip(column(found, "side"), column(found, "reads_a_second"), strict=True))
    assert {reads[side] for side in ours if "speculative" in side} == {reads["speculative"]}
    assert reads["speculative"] < 0.8 * reads["reallm"]
    assert {reads[side] for side in ours if "speculative" not in side} == {reads["transformers"]}
    for row in found["rows"]:
        assert 0 < row["ms_a_second"]["least"] <= row["ms_a_second"]["median"] <= row["ms_a_second"]["most"]
        assert row["limit_ms_a_second"] > 0 and row["p50_ms"] <= row["p99_ms"]
    limits = dict(zip(column(found, "side"), column(found, "limit_ms_a_second"), strict=True))
    of_others = limits["speculative int8"] < limits["speculative"] < limits["reallm"] == limits["transformers"]
    assert of_others and limits["compiled"] == pytest.approx(limits["reallm"], rel=0.5), (
        "fewer passes read fewer weights, and int8 ones are small"
    )
    operators = (tmp_path / "operators.txt").read_text()
    assert operators.count("\nSelf CPU time total") == 10 and operators.startswith("reallm, chunks of 480 ms\n") and "aten::mm" in operators
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
        (side, beam) for beam in (1, 3) for side in ("reallm", "reallm compiled", "transformers")
    ]
    assert all(row["tokens_a_second"]["median"] > 0 for row in found["rows"])


def test_search_needs_as_long_a_window(bench: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench("search", "--tokens", 128)
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: --tokens 128: generate has no window")


def test_int8(bench: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cuts([make_cut(tmp_path, number) for number in range(3)], tmp_path / "test.jsonl.gz")
    export(SpeechReaLLM.tiny().eval(), tmp_path / "bundle", METADATA)
    options = (tmp_path / "test.jsonl.gz", "--model", tmp_path / "bundle", "--utterances", 2)
    found = bench("int8", *options, config=None)
    assert column(found, "side") == ["float32", "int8", "float32 compiled", "int8 compiled"]
    assert column(found, "words") == [3, 3, 3, 3] and found["notes"]["utterances"] == 2  # 1 and 2
    others = column(found, "utterances_with_other_words")
    assert others[2] == 0 and 0 <= others[1] <= 2
    assert column(found, "ratio")[0] == 1
    assert column(found, "weights_mb")[1] < 0.6 * column(found, "weights_mb")[0]
    for row in found["rows"]:
        assert 0 < row["ms_a_second"]["least"] < row["ms_a_second"]["most"], "two turns"
    with pytest.raises(SystemExit):
        bench("int8", *options, "--utterances", 0, config=None)
    assert "--utterances is 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench("int8", *options, config="digits")
    assert "unrecognized arguments: --config" in capsys.readouterr().err


def test_align(bench: Callable[..., Any]) -> None:
    found = bench("align")
    assert column(found, "side")[-1] == "forced_align" and column(found, "side")[0].startswith("torch ")
    assert "k2" in str(column(found, "side")) or "not measured" in found["notes"]["k2"]
    assert column(found, "ratio")[-1] == 1
    for row in found["rows"]:
        assert row["audio_seconds_a_second"] * row["ms"]["median"] / 1000 == pytest.approx(4 * 30 * 0.04), "all are as long"


def test_train(bench: Callable[..., Any], tmp_path: Path) -> None:
    found = bench("train", "--batch-seconds", 8, "--utterances", 60, "--buckets", 4, "--profile", tmp_path / "operators.txt")
    assert "\nspeechbrain\n" in (tmp_path / "operators.txt").read_text()
    assert column(found, "side") == ["reallm", "speechbrain"]
    assert 0 < found["notes"]["padding_percent"] < 30
    for row in found["rows"]:
        parts = sum(row[f"{part}_ms"]["median"] for part in ("encoder", "loss", "optimizer"))
        assert found["notes"]["batch_seconds_of_audio"] / row["audio_seconds_a_second"]["median"] * 1000 == pytest.approx(parts, rel=0.5)
        assert row["memory_mb"] > 0


@pytest.mark.parametrize("side", ["reallm", "speechbrain"])
def test_a_step_in_parts_has_the_gradients_of_one_in_a_piece(script: Callable[[str], Any], side: str) -> None:
    train = script("train")
    arguments = type("Arguments", (), {"device": "cpu", "dtype": "float32", "clock": "wall"})
    torch.manual_seed(0)
    one = getattr(train, f"{side}_side")("tiny", "cpu")
    batch, found = train.made(np.array([1.3, 0.9]), 50), []
    one.optimizer.step = lambda: found.append(
        [parameter.grad.clone() for parameter in one.model.parameters() if parameter.grad is not None]
    )
    torch.manual_seed(1)  # dropout, and chunks
    train.step(one, batch, arguments)
    torch.manual_seed(1)
    one.loss(batch, *one.encode(batch)).backward()
    one.optimizer.step()
    assert len(found[0]) > 20 and all(torch.equal(got, expected) for got, expected in zip(*found, strict=True))


def test_kept(bench: Callable[..., Any], script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    short, long = (bench("kept", "--systems", "speech_reallm", "--seconds", seconds)["rows"][0] for seconds in (1, 2))
    assert 0 < 0.5 * long["mb_a_second"] < short["mb_a_second"] < 2 * long["mb_a_second"], "a second's, whatever the length"
    with pytest.raises(SystemExit):
        bench("kept", "--systems", "lstm")
    assert "--systems 'lstm': of speech_reallm, " in capsys.readouterr().err
    linear, inputs = torch.nn.Linear(3, 5), torch.randn(7, 3)
    kept = script("_measure").kept_for_backward(linear, lambda: (linear(inputs) ** 2).sum())
    assert kept == 4 * (7 * 3 + 7 * 5), "the inputs, and what is squared; no weights"


def test_streams(bench: Callable[..., Any], tmp_path: Path) -> None:
    found = bench("streams", "--seconds", 0.6, "--warm-up", 1, "--most", 2, "--profile", tmp_path / "operators.txt")
    notes = found["notes"]
    assert column(found, "streams")[0] == 1 and notes["streams_by_arithmetic"] > 1
    assert notes["streams"] in (0, 1, 2)
    assert notes["percent_of_streams_by_arithmetic"] == 100 * notes["streams"] / notes["streams_by_arithmetic"]
    for row in found["rows"]:
        assert row["p50_ms"]["median"] <= row["p99_ms"]["median"] and row["p99_ms"]["least"] < row["p99_ms"]["most"], "two turns"
        shares = [row[f"{part}_percent"] for part in ("push", "take", "encoder", "search", "deliver")]
        assert all(share > 0 for share in shares) and sum(shares) <= 100
    assert (tmp_path / "operators.txt").read_text().startswith(f"{max(1, notes['streams'])} streams\n")


def test_streams_counts_all_chunks_that_arrive(script: Callable[[str], Any]) -> None:
    streams = script("streams")
    from _models import build, paced

    arguments = types.SimpleNamespace(device="cpu", warm_up=0.1, group=2)
    live = streams.LiveStreams(paced(build("tiny")), 5, arguments)
    decoded = list[int]()
    step = live.engine.step
    live.engine.step = lambda: (time.sleep(0.1), decoded.append(1), step())  # too slow for five streams of 0.24 s, in three groups
    turn = live.turn(0.6)
    arrive = sum(len(np.arange(phase, 0.6, 0.24)) for phase in live.phases)
    assert len(turn.late) == turn.decoded == arrive and turn.steps == len(decoded) >= arrive / 2 and live.engine.group == 2
    assert max(turn.late) > 0.3 and min(turn.late) > 0.1
    assert 0.1 * turn.steps < turn.stepping < turn.seconds > 0.6
    live.engine.step = step
    assert not live.engine.step(), "nothing is left for the next turn"
    live.system.searcher.positions = 1  # a response takes several steps, and its chunk is late until the last
    bounded = streams.LiveStreams(live.system, 1, arguments).turn(2.0)
    assert bounded.steps >= 1.5 * bounded.decoded and bounded.decoded == len(bounded.late) >= 8


def test_streams_judges_by_the_median_p99(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    streams = script("streams")
    late = iter([[0.1] * 10, [9.0] * 10, [0.2] * 10])

    class Live:
        engine = types.SimpleNamespace(close=lambda: None, group=4)

        def __init__(self, *given: Any) -> None: ...

        def turn(self, seconds: float) -> Any:
            return streams.Turn(next(late), steps=10, decoded=10, pushing=0.1, stepping=0.2, seconds=1.0)

        def shares(self, seconds: float) -> dict[str, float]:
            return {}

    monkeypatch.setitem(streams.try_streams.__globals__, "LiveStreams", Live)
    rows: list[dict[str, Any]] = []
    report = types.SimpleNamespace(row=lambda **values: rows.append(values))
    assert streams.try_streams(None, 4, types.SimpleNamespace(repeats=3, seconds=1.0), report) == pytest.approx(0.2)
    assert str(rows[0]["p99_ms"]) == "200 (100–9000)" and rows[0]["busy_percent"] == pytest.approx(30)


def test_time_of_parts_adds_up(script: Callable[[str], Any]) -> None:
    class Part:
        def work(self, *, more: int) -> int:
            return 7 + more

    parts, spent = [Part(), Part()], dict[str, float]()
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 24.0])
    timer = types.SimpleNamespace(now=lambda: next(ticks))
    with script("streams").timed({"both": [(part, "work") for part in parts], "none": []}, timer, spent):
        assert [parts[which].work(more=1) for which in (0, 1, 0)] == [8] * 3
    assert spent == {"both": 7.0, "none": 0.0}
    assert parts[0].work(more=2) == 9 and spent["both"] == 7.0, "not any more"


def test_streams_of_other_chunks_searches_and_weights(bench: Callable[..., Any], script: Callable[[str], Any]) -> None:
    streams = script("streams")
    from reallm.layers.int8_linear import Int8Linear
    from reallm.streaming.compiled.linear import PackedLinear

    def made(**options: Any) -> Any:
        plain = {
            "config": "tiny",
            "device": "cpu",
            "dtype": "float32",
            "chunk": None,
            "search": "greedy",
            "int8": False,
            "compiled": False,
            "positions": None,
        }
        return streams.system_of(types.SimpleNamespace(**plain | options))

    plain, other = made(), made(chunk=12, search="speculative", int8=True, positions=3)
    for int8, dtype in ((False, torch.float32), (True, torch.int8)):
        packed = made(int8=int8, compiled=True).modules()
        assert {part.weight.dtype for part in packed if isinstance(part, PackedLinear)} == {dtype}
    assert other.chunk_samples == 2 * plain.chunk_samples and other.encoder.chunk.left == plain.encoder.chunk.left
    assert type(plain.searcher).__name__ == "GreedySearcher" and plain.searcher.positions is None
    assert (type(other.searcher).__name__, other.searcher.ahead, other.searcher.positions) == ("SpeculativeGreedySearcher", 3, 3)
    assert [any(isinstance(part, Int8Linear) for part in system.modules()) for system in (plain, other)] == [False, True]
    assert streams.weights(other.encoder) <= streams.weights(plain.encoder) < 1.1 * streams.weights(other.encoder), "biases aside, as many"
    digits = made(config="digits", search="speculative")
    assert digits.searcher.max_symbols == made(config="digits").searcher.max_symbols and not hasattr(digits.decoder, "of_blank")
    found = bench("streams", "--chunk", 12, "--search", "speculative", "--int8", "--most", 1, "--seconds", 1, "--warm-up", 1)
    assert found["notes"]["chunk_ms"] == 480 and found["settings"]["search"] == "speculative"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seconds", 0.4), ("--resolution", 1), ("--least", 0), ("--positions", 0), ("--chunk", 0), ("--clock", "cpu")],
)
def test_streams_refuses(bench: Callable[..., Any], capsys: pytest.CaptureFixture[str], option: str, value: object) -> None:
    with pytest.raises(SystemExit) as end:
        bench("streams", option, value)
    assert end.value.code == 2 and f"error: {option} " in capsys.readouterr().err


def test_windows_are_full_before_the_clock_begins(script: Callable[[str], Any]) -> None:
    streams = script("streams")
    from _models import build, paced

    system = paced(build("tiny"))  # 128 positions, 25 / 6 inputs and 4 tokens a second
    assert streams.filling(system) == pytest.approx(128 / (25 / 6 + 4))
    system.decoder.decoder.window = 1
    assert streams.filling(system) == pytest.approx(24 * 0.04), "the encoder's"


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


def test_a_table_to_be_pasted(bench: Callable[..., Any], script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = bench("kept", "--systems", "speech_reallm", "--seconds", 1)
    printed = capsys.readouterr().out.splitlines()
    origin, _, head, line, row = printed[printed.index("") + 1 :]
    for fact in (found["command"], found["machine"]["processor"], "threads of torch: 1", found["date"][:10], found["commit"][:12]):
        assert fact in origin
    assert (head, line) == ("| system | million parameters | mb a second |", "| --- | --- | --- |")
    assert row.startswith("| speech_reallm | 0.0") and row.count("|") == 4
    measure = script("_measure")
    assert measure.markdown([{"a": "x|y"}, {"a": "1", "b": "2"}]) == "| a | b |\n| --- | --- |\n| x\\|y |  |\n| 1 | 2 |"


def test_what_the_machine_does(script: Callable[[str], Any]) -> None:
    measure = script("_measure")
    assert 1e8 < measure.bandwidth("cpu", 1) < 1e13
    assert 1e8 < measure.arithmetic("cpu", torch.float32, 1) < 1e15
