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
        ("aed", "system.length_power=-1", "length_power -1"),
        ("aed", "system.decoder_dim=32", "system 'aed' has length_power, ctc_search_weight, max_tokens_per_second to set"),
        ("aed", "sytem.length_power=1", r"'sytem' is no part of the system \(did you mean 'system'\?\): one of"),
        ("decoder_only", "system.ctc_weight=0.4", r"'decoder_only' has length_power, .* to set \(did you mean 'ctc_search_weight'\?\)"),
        ("ctc", "system.beam=4", "'ctc' has nothing to set"),
    ],
)
def test_settings_that_cannot_be(name: str, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_settings(find("system", name).tiny(), [setting])


@pytest.mark.parametrize("name", ["aed", "decoder_only"])
@torch.no_grad()
def test_a_trained_system_searches_otherwise(name: str) -> None:
    torch.manual_seed(0)
    tiny = find("system", name).tiny()
    # Whole numbers, as a configuration may have them.
    begun = {**tiny.component_spec.kwargs, "ctc_search_weight": 0, "length_power": 1, "max_tokens_per_second": 25}
    system = find("system", name)(**begun).eval()
    kept = {key: weight.clone() for key, weight in system.state_dict().items()}
    wav, lens = torch.randn(1, 8000) * 0.1, torch.tensor([8000])
    chosen = {"ctc_search_weight": 0.9, "length_power": 0.5, "max_tokens_per_second": 12.5}
    assert apply_settings(system, [f"system.{key}={value}" for key, value in chosen.items()]) == {
        f"system.{key}": value for key, value in chosen.items()
    }
    found = system.recognize(wav, lens)
    built = find("system", name)(**{**begun, **chosen}).eval()
    built.load_state_dict(kept)
    expected = built.recognize(wav, lens)
    assert torch.equal(found.token_ids, expected.token_ids) and torch.equal(found.log_probs, expected.log_probs)
    assert all(torch.equal(kept[key], weight) for key, weight in system.state_dict().items())
