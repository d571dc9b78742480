"""Speech ReaLLM with every interleaver: streamed text is offline text, gradients, flush and the times of words."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm.bundle import export, load
from reallm.contract import system as contract
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.interleavers.delayed_stream import DelayedStreamInterleaver
from reallm.registry import find
from reallm.searchers.beam import BeamSearcher
from reallm.systems.speech_reallm import SpeechReaLLM

PERIOD = 640  # samples


class Chunked(SpeechReaLLM):
    """Three speech embeddings a response: no divisor of the encoder's chunk."""

    interleaving: Any = partial(ChunkEosInterleaver, chunk_size=3)

    @classmethod
    def tiny(cls) -> Any:
        system = SpeechReaLLM.tiny()
        system.interleaver = cls.interleaving(blank_id=system.tokenizer.vocab_size)
        return system


class Delayed(Chunked):
    interleaving = DelayedStreamInterleaver


class BeamChunked(Chunked):
    @classmethod
    def tiny(cls) -> Any:
        system = super().tiny()
        system.searcher = BeamSearcher.tiny()
        return system


class BeamDelayed(BeamChunked):
    interleaving = DelayedStreamInterleaver


@pytest.mark.parametrize("cls", [Chunked, Delayed, BeamChunked, BeamDelayed])
def test_streamed_is_offline_whatever_the_neighbours_and_their_ages(cls: Any) -> None:
    contract.check_streaming_equals_offline(cls)
    contract.check_rows_and_padding(cls)


@pytest.mark.parametrize("cls", [Chunked, Delayed])
def test_it_trains(cls: Any) -> None:
    contract.check_gradient_reaches_every_parameter(cls)
    contract.check_loss_ignores_padding(cls)


def build(interleaver: str, **settings: Any) -> SpeechReaLLM:
    tiny = SpeechReaLLM.tiny()
    blank = tiny.tokenizer.vocab_size
    parts = {name: getattr(tiny, name) for name in ("frontend", "encoder", "adapter", "decoder", "searcher", "tokenizer")}
    return SpeechReaLLM(**parts, interleaver=find("interleaver", interleaver)(blank_id=blank), **settings).eval()  # type: ignore[arg-type]


def test_the_flush_ends_with_a_response() -> None:
    system = build("chunk_eos", delay=1)  # four speech embeddings each
    totals = [samples + system.flush_samples(samples) for samples in (0, 1, 3 * PERIOD, 3 * PERIOD + 1, 7 * PERIOD)]
    assert totals == [4 * PERIOD, 4 * PERIOD, 4 * PERIOD, 8 * PERIOD, 8 * PERIOD]
    assert system.with_flush(torch.zeros(2, 5), torch.tensor([0, 5]))[1].tolist() == [4 * PERIOD, 4 * PERIOD]
    assert build("delayed_stream", delay=1).flush_samples(PERIOD + 1) == 2 * PERIOD - 1


def test_times_allow_for_waiting() -> None:
    size = SpeechReaLLM.tiny().tokenizer.vocab_size
    tokens, lasts = torch.tensor([[1, 1, 1]]), [0.04] * size  # half a token period
    start, end = build("chunk_eos", token_durations=lasts).token_span(tokens, torch.tensor([[3, 7, 7]]))
    assert end.tolist() == [[PERIOD, 4 * PERIOD, 6 * PERIOD]]  # a period earlier than due in the middle of their chunks: the delay
    start, end = build("delayed_stream", token_durations=lasts).token_span(tokens, torch.tensor([[3, 4, 9]]))
    assert end.tolist() == [[3 * PERIOD, 3 * PERIOD + PERIOD // 2, 9 * PERIOD]]
    assert (end - start).unique().tolist() == [PERIOD // 2]


@pytest.mark.parametrize("name", ["chunk_eos", "delayed_stream"])
def test_a_bundle_has_it(name: str, tmp_path: Path) -> None:
    system = build(name)
    export(system, tmp_path, {"license": "none", "training_data": "none"})
    assert load(tmp_path).interleaver.component_spec == system.interleaver.component_spec
