"""Chunks may be chosen when decoding, where the system streams in chunks that fit its token period."""

import pytest
import torch

from reallm.cli._settings import apply_settings
from reallm.errors import InputError
from reallm.registry import find
from reallm.streaming.measurement import offline_mismatches
from reallm.streaming.offline import recognizer_for
from reallm.streaming.simulation import stream_utterances


@pytest.mark.parametrize("name", ["speech_reallm", "ctc", "transducer"])
def test_a_system_streams_in_other_chunks(name: str) -> None:
    torch.manual_seed(0)
    system = find("system", name).tiny().eval()
    assert apply_settings(system, ["encoder.chunk_size=6"]) == {"encoder.chunk_size": 6}
    assert system.chunk_samples == 6 * system.frame_samples and (system.encoder.chunk.left, system.encoder.chunk.right) == (5, 2)
    audio = torch.randn(11000).numpy() * 0.1
    utterance = ("a", audio, system.sample_rate)
    streamed = {key: hypothesis.text for key, hypothesis, _ in stream_utterances(recognizer_for(system, 1), [utterance], 0.02)}
    assert offline_mismatches(system, [utterance], streamed) == []


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("speech_reallm", "encoder.chunk_size=5", "a chunk is a multiple of 2 encoder frames"),
        ("speech_reallm", "encoder.chunk_size=0", "2 at least"),
        ("ctc", "encoder.chunk_size=1", "multiple of 1 encoder frames \\(the token period\\), 2 at least"),
        ("ctc", "encoder.chunk_size=x", "a chunk is a multiple of 1"),
        ("aed", "encoder.chunk_size=4", "system 'aed' hears the whole utterance first"),
        ("ctc", "encoder.layers=4", "'encoder' is trained with its settings"),
    ],
)
def test_chunks_that_cannot_be(name: str, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_settings(find("system", name).tiny(), [setting])
