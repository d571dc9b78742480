"""Every registered system behind its recognizer: the streamed text is the offline text, whatever the pieces, rates and neighbours."""

from typing import Any

import numpy as np
import pytest
import soxr
import torch

from reallm.contract.system import audio, talkative
from reallm.errors import CapacityError, InputError
from reallm.registry import catalogue, find
from reallm.streaming.measurement import offline_mismatches
from reallm.streaming.offline import recognizer_for
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
        streamed = {key: result.text for key, result, _ in stream_utterances(recognizer_for(system, slots), utterances, piece)}
        assert offline_mismatches(system, utterances, streamed) == []
        assert sum(len(text) for text in streamed.values()) > 3, "nothing was said"


@pytest.mark.parametrize("name", ["speech_reallm", "transducer"])
def test_the_n_best_texts_of_a_stream(name: str) -> None:
    system: Any = talkative(find("system", name)).float()
    samples = [np.random.default_rng(n).standard_normal(3000 + 1500 * n).astype(np.float32) * 0.2 for n in range(4)]

    def final(slots: int) -> list[Any]:
        pieces = stream_utterances(recognizer_for(system, slots), ((row, one, 8000) for row, one in enumerate(samples)))
        return [result for _, result, _ in sorted(pieces, key=lambda found: found[0])]

    assert [result.n_best for result in final(2)] == [[]] * 4, "greedy search has one text"
    system.searcher = find("searcher", "beam")(beam=4, max_symbols=3)
    found = final(3)
    for result in found:
        texts, scores = [one.text for one in result.n_best], [one.score for one in result.n_best]
        assert texts[0] == result.text and len(set(texts)) == len(texts) > 1
        assert scores == sorted(scores, reverse=True)
    for result, alone in zip(found, final(1), strict=True):
        assert [one.text for one in result.n_best] == [one.text for one in alone.n_best], "whatever the neighbours"
        assert [one.score for one in result.n_best] == pytest.approx([one.score for one in alone.n_best], abs=1e-4)
    stream = Recognizer(system).stream()
    stream.accept_waveform(samples[3], 8000)
    assert stream.result().n_best == [] and stream.finish().n_best == stream.current().n_best != []
    system.searcher = find("searcher", "beam")(beam=12, max_symbols=1, merge="off", blank_penalty=-4.0)
    texts = [[one.text for one in result.n_best] for result in final(2)]
    assert all(len(set(of_one)) == len(of_one) for of_one in texts), "a text that was said at several times is in it once"
    assert min(map(len, texts)) < 12


def test_a_system_in_double_precision_streams_too():
    system = find("system", "speech_reallm").tiny().double().eval()
    stream = Recognizer(system).stream()
    stream.accept_waveform(np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 0.1, 8000)
    assert stream.finish().is_final


def test_a_stream_that_comes_to_the_decoders_capacity_ends_alone() -> None:
    system: Any = talkative(find("system", "speech_reallm")).float()
    llama = find("decoder", "llama")
    weights = system.decoder.state_dict()
    short, long = (np.random.default_rng(n).standard_normal(4000 * n).astype(np.float32) * 0.2 for n in (1, 8))

    def text(of: Any, samples: Any) -> str:
        stream = of.stream()
        stream.accept_waveform(samples, 8000)
        return str(stream.finish().text)

    def full_attention(capacity: int) -> Recognizer:
        system.decoder = llama(vocab_size=system.tokenizer.vocab_size + 1, dim=16, layers=2, heads=2, window=0, capacity=capacity)
        system.decoder.load_state_dict(weights)
        system.eval()
        return Recognizer(system, 2)

    expected, whole = (text(full_attention(1000), samples) for samples in (short, long))
    recognizer = full_attention(40)
    streams = [recognizer.stream(), recognizer.stream()]
    for stream, samples in zip(streams, (long, short), strict=True):
        stream.accept_waveform(samples, 8000)
    recognizer.decode()
    cut, other = streams
    assert cut.error is not None and other.error is None
    assert 0 < len(cut.current().text) < len(whole) and whole.startswith(cut.current().text)
    assert not cut.is_final
    for use in (lambda: cut.accept_waveform(short, 8000), cut.result, lambda: recognizer.finish(streams)):
        with pytest.raises(CapacityError, match=r"the stream ends after 4\.0 s, at the decoder's capacity: split the audio, or raise "):
            use()
    assert other.is_final and other.current().text == expected
    assert [text(recognizer, short), text(recognizer, short)] == [expected, expected], "the slots are free again"
    with pytest.raises(CapacityError, match=r"^utterance 'long': the stream ends after .* s, at the decoder's capacity: split "):
        list(stream_utterances(recognizer, [("short", short, 8000), ("long", long, 8000)]))
    with pytest.raises(InputError, match="stream 1 of 2 needs more than the decoder's capacity of 40 positions"):
        system.recognize(torch.tensor(np.stack([long, long])), torch.tensor([len(short), len(long)]))
