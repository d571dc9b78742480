"""What may be chosen when decoding: chunks, where the system streams in such as fit its token period; the search of one that does not."""

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
        ("aed", "system.ctc_search_weight=1", r"--set 'system.ctc_search_weight=1': ctc_search_weight 1\.0: choose a share from 0 up to"),
        ("aed", "system.ctc_search_weight=x", "'x' is not a finite number"),
        ("aed", "system.beam=0", "beam 0: at least one hypothesis is kept"),
        ("aed", "system.beam=1.5", "'1.5' is not a whole number"),
        ("aed", "system.decoder_dim=32", "system 'aed' has beam, length_power, max_tokens_per_second, ctc_search_weight to set"),
        ("decoder_only", "system.ctc_search_weight=0.4", "'decoder_only' has beam, length_power, max_tokens_per_second to set"),
        ("ctc", "system.beam=4", "'ctc' has nothing to set"),
    ],
)
def test_settings_that_cannot_be(name: str, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_settings(find("system", name).tiny(), [setting])


@torch.no_grad()
def test_a_trained_system_searches_otherwise() -> None:
    torch.manual_seed(0)
    system = find("system", "aed").tiny().eval()
    kept = {name: weight.clone() for name, weight in system.state_dict().items()}
    wav, lens = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    assert apply_settings(system, ["system.ctc_search_weight=0.9", "system.beam=2", "system.length_power=0"]) == {
        "system.ctc_search_weight": 0.9,
        "system.beam": 2,
        "system.length_power": 0.0,
    }
    found = system.recognize(wav, lens)
    assert (system.beam, system.length_power, system.ctc_search_weight) == (2, 0.0, 0.9)
    built = type(system)(**{**system.component_spec.kwargs, "beam": 2, "length_power": 0.0, "ctc_search_weight": 0.9}).eval()
    built.load_state_dict(kept)
    expected = built.recognize(wav, lens)
    assert torch.equal(found.token_ids, expected.token_ids) and torch.equal(found.log_probs, expected.log_probs)
    assert all(torch.equal(kept[name], weight) for name, weight in system.state_dict().items())
