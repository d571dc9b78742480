"""Every registered system behind the recognizer: the streamed text is the offline text, whatever the pieces, rates and neighbours."""

from typing import Any

import numpy as np
import pytest
import soxr

from reallm.contract.system import audio, talkative
from reallm.registry import catalogue, find
from reallm.streaming.measurement import offline_mismatches
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.simulation import stream_utterances


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("name", catalogue("system"))
def test_the_streamed_text_is_the_offline_text(name: str, rate: int) -> None:
    system: Any = talkative(catalogue("system")[name]).float()
    wav, lens = audio(system)
    samples = [row[:length].float().numpy() for row, length in zip(wav, lens.tolist(), strict=True)]
    utterances = [(str(row), np.asarray(soxr.resample(one, system.sample_rate, rate)), rate) for row, one in enumerate(samples)]
    for piece, slots in ((0.02, 1), (0.16, 2), (1.0, 5), (0.0137, 3)):
        streamed = {key: result.text for key, result, _ in stream_utterances(Recognizer(system, slots), utterances, piece)}
        assert offline_mismatches(system, utterances, streamed) == []
        assert sum(len(text) for text in streamed.values()) > 3, "nothing was said"


def test_a_system_in_double_precision_streams_too():
    system = find("system", "speech_reallm").tiny().double().eval()
    stream = Recognizer(system).stream()
    stream.accept_waveform(np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 0.1, 8000)
    assert stream.finish().is_final
