"""One Speech ReaLLM for every latency: delays drawn in training, told to the decoder, and chosen by each stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reallm.bundle import export, load
from reallm.contract import system as contract
from reallm.decoders.lstm import LSTMDecoder
from reallm.errors import InputError
from reallm.protocols import RowOptions
from reallm.registry import find
from reallm.searchers.beam import BeamSearcher
from reallm.streaming.recognizer import Recognizer
from reallm.systems.ctc import CTC
from reallm.systems.speech_reallm import SpeechReaLLM

PERIOD = 640  # samples, 80 ms


def build(delays: Any = (1, 4), decoder: Any = None, **settings: Any) -> Any:
    tiny = SpeechReaLLM.tiny()
    parts = {name: getattr(tiny, name) for name in ("frontend", "encoder", "adapter", "decoder", "interleaver", "searcher", "tokenizer")}
    parts["decoder"] = decoder or parts["decoder"]
    return SpeechReaLLM(**parts, delay=2, training_delays=delays, **settings)


class Conditioned(SpeechReaLLM):
    """Its delays sound very different, and its streams begin with one that is not the first."""

    beam = False

    @classmethod
    def tiny(cls) -> Any:
        system = build(decoder=LSTMDecoder(SpeechReaLLM.tiny().decoder.vocab_size, 16))
        system.delay_embedding.weight.data.mul_(50)
        if cls.beam:
            system.searcher = BeamSearcher.tiny()
        return system


class BeamConditioned(Conditioned):
    beam = True


@pytest.mark.parametrize("cls", [Conditioned, BeamConditioned])
def test_it_keeps_the_contract_of_systems(cls: Any) -> None:
    for check in contract.CHECKS:
        check(cls)


@pytest.mark.parametrize("cls", [Conditioned, BeamConditioned])
@torch.no_grad()
def test_streams_of_different_delays_share_a_batch(cls: Any) -> None:
    system = contract.talkative(cls)
    wav, lens = contract.audio(system)
    delay = torch.tensor([4, 1, 3, 2, 1])
    whole = contract.collect(system.recognize(wav, lens, delay))
    assert whole[0].token_ids != contract.collect(system.recognize(wav, lens))[0].token_ids, "it is not told its delay"
    for row in range(5):
        alone = contract.collect(system.recognize(wav[row : row + 1], lens[row : row + 1], delay[row : row + 1]))[0]
        contract.require_same_answers(whole[row], alone, f"row {row}")
    fresh = system.init_state

    def with_delays(*arguments: Any) -> Any:
        state = fresh(*arguments)
        system.begin(
            state, torch.ones(5, dtype=torch.bool), RowOptions(delay, torch.zeros(5).double(), torch.full((5,), 99), torch.zeros(5).long())
        )
        return state

    system.init_state = with_delays
    for row, answers in enumerate(contract.stream(system, wav, lens, seed=1)):
        contract.require_same_answers(answers, whole[row], f"streamed row {row}")


@torch.no_grad()
def test_a_recognizers_streams_choose_their_delay_anew() -> None:
    system = contract.talkative(Conditioned).float()
    wav, lens = contract.audio(system)
    samples = wav[0, : int(lens[0])].float()
    seconds = PERIOD / 8000

    def offline(periods: int) -> str:
        emission = system.recognize(samples[None], lens[:1], torch.tensor([periods]))
        return str(system.tokenizer.decode(emission.token_ids[0, : emission.lens[0]].tolist()))

    assert len({offline(periods) for periods in (1, 2, 4)}) > 1
    recognizer = Recognizer(system, max_streams=2)
    for first, second in ((4, 1), (2, None), (1, 4)):
        streams = [recognizer.stream(delay=periods and periods * seconds) for periods in (first, second)]
        for stream in streams:
            stream.accept_waveform(samples.numpy(), 8000)
        assert [one.text for one in recognizer.finish(streams)] == [offline(first), offline(second or 2)]


@torch.no_grad()
def test_times_of_words_allow_for_the_delay_of_their_stream() -> None:
    system = build().eval()
    system.decoder.output.weight.data.zero_()
    system.searcher = find("searcher", "greedy")(max_symbols=1)  # a token at each embedding: the first of equals
    wav, lens = torch.zeros(2, 6 * PERIOD), torch.tensor([6 * PERIOD] * 2)
    emission = system.recognize(wav, lens, torch.tensor([1, 4]))
    end = system.token_span(emission.token_ids, emission.frame)[1]
    assert emission.lens.tolist() == [10, 10]  # six, and a flush of four
    assert (end[:, :10] // PERIOD).tolist() == [[max(n - late, 0) + 1 for n in range(10)] for late in (1, 4)]


def test_delays_are_drawn_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    system = build()
    drawn: list[int] = []
    lay_out = system.interleaver.build

    def noted(alignments: Any, lens: Any, delay: Any, period: int) -> Any:
        drawn.extend(delay.tolist())
        return lay_out(alignments, lens, delay, period)

    monkeypatch.setattr(system.interleaver, "build", noted)
    batch = contract.training_batch(system.double())
    for _ in range(20):
        system.train().loss(batch)
    assert set(drawn) == {1, 2, 3, 4}
    drawn.clear()
    assert system.eval().loss(batch)[0] == system.loss(batch)[0] and set(drawn) == {2}


def test_a_bundle_has_the_range(tmp_path: Path) -> None:
    system = contract.talkative(Conditioned).float()
    export(build().eval(), tmp_path / "new", {"license": "none", "training_data": "none"})
    loaded: Any = load(tmp_path / "new")
    assert loaded.delays == (1, 4) and loaded.delay_embedding.num_embeddings == 4
    assert not any("delay" in name for name in build(None).state_dict()), "of one delay nothing is told"
    assert system.delay_periods(0.2) == 2 and loaded.delay_periods(0.32) == 4


@pytest.mark.parametrize("seconds", [0.0, 0.07, 0.33, 5.0, float("nan")])
def test_a_delay_that_was_not_trained_is_refused_with_the_range(seconds: float) -> None:
    system = build().eval()
    with pytest.raises(InputError, match=r"trained for delays from 0\.08 to 0\.32 s, in steps of 0\.08 s"):
        Recognizer(system).stream(delay=seconds)
    with pytest.raises(InputError, match=r"delay 0\.4 s: this model was trained for delays of 0\.16 s alone"):
        build(None).delay_periods(0.4)
    with pytest.raises(InputError, match=r"system 'ctc' was not trained for a choice of delays"):
        Recognizer(CTC.tiny().eval()).stream(delay=0.32)
    stream = Recognizer(system).stream()  # the slot is still free
    stream.accept_waveform(np.zeros(100, dtype=np.float32), 8000)


@pytest.mark.parametrize("delays", [(3, 4), (0, 1), (4, 1), (-1, 4), (1, 2, 3), (2,)])
def test_ranges_that_do_not_fit_are_named(delays: Any) -> None:
    with pytest.raises(InputError, match="training_delays"):
        build(delays)
    with pytest.raises(InputError, match="flush_periods 3"):
        build((1, 4), flush_periods=3)
