"""Systems that do not stream, behind the interface of streams: words at the end, in one batch; which system streams is decided once."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from reallm.contract.system import audio, talkative
from reallm.errors import InputError
from reallm.protocols import times_known
from reallm.registry import catalogue, find
from reallm.streaming import offline
from reallm.streaming.measurement import offline_text
from reallm.streaming.offline import OfflineRecognizer, recognizer_for
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.simulation import stream_utterances
from reallm.types import Emission
from tests.dummies.recognizer import LevelSystem, no_memory, say, text_of

OFFLINE = [name for name in catalogue("system") if not hasattr(find("system", name), "step")]


class WholeLevels(nn.Module):
    """What hears levels, without its streaming."""

    sample_rate = 8000

    def __init__(self) -> None:
        super().__init__()
        self.levels = LevelSystem(find("tokenizer", "character").tiny())
        self.tokenizer, self.token_span = self.levels.tokenizer, self.levels.token_span
        self.sizes: list[int] = []

    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Counts its batches."""
        self.sizes.append(len(lens))
        return self.levels.recognize(wav, lens)


@pytest.fixture
def system() -> Any:
    return WholeLevels().eval()


def test_there_are_both_sorts() -> None:
    assert {"aed", "decoder_only"} <= set(OFFLINE)
    assert {"ctc", "speech_reallm"}.isdisjoint(OFFLINE)


@pytest.mark.parametrize("name", catalogue("system"))
def test_one_place_decides(name: str) -> None:
    system: Any = find("system", name).tiny().eval()
    assert type(recognizer_for(system)) is (OfflineRecognizer if name in OFFLINE else Recognizer)
    assert times_known(system) is (name not in OFFLINE)
    if name in OFFLINE:
        with pytest.raises(InputError, match=rf"^system '{name}' recognizes whole utterances and does not stream: use .*Recognizer$"):
            Recognizer(system)
    with pytest.raises(InputError, match="training mode"):
        recognizer_for(system.train())
    with pytest.raises(InputError, match="max_streams=0"):
        recognizer_for(system.eval(), 0)


@pytest.mark.parametrize("name", OFFLINE)
def test_words_are_emitted_when_the_utterance_ends(name: str) -> None:
    system: Any = talkative(find("system", name)).float()
    wav, lens = audio(system)
    utterances = [(row, wav[row, : int(lens[row])].float().numpy(), 8000) for row in range(len(lens))]
    for slots in (1, 3):
        found = {key: (hypothesis, seconds) for key, hypothesis, seconds in stream_utterances(recognizer_for(system, slots), utterances)}
        assert sorted(found) == [row for row, _, _ in utterances]
        for row, samples, rate in utterances:
            hypothesis, seconds = found[row]
            assert hypothesis.text == offline_text(system, samples, rate) if len(samples) else hypothesis.text == ""
            assert seconds == len(samples) / rate
            assert all(word.emitted_at == seconds and word.start <= word.end <= seconds for word in hypothesis.words)
    assert sum(len(hypothesis.words) for hypothesis, _ in found.values())


def test_streams_that_ended_together_are_one_batch(system: Any) -> None:
    recognizer = recognizer_for(system, 3)
    utterances = [(n, say([n, n + 1], seed=n), 8000) for n in range(1, 6)]
    found = {key: hypothesis.text for key, hypothesis, _ in stream_utterances(recognizer, utterances)}
    assert found == {n: text_of([n, n + 1]) for n in range(1, 6)}
    assert system.sizes == [3, 2]


def test_an_utterance_that_is_too_long_ends_alone(system: Any) -> None:
    recognizer = recognizer_for(system, 2)
    utterances = [("short", say([1]), 8000), ("long", np.zeros(301 * 8000, dtype=np.float32), 8000)]
    streams = []
    for _, samples, rate in utterances:
        streams.append(recognizer.stream())
        streams[-1].accept_waveform(samples, rate)
    with pytest.raises(
        InputError, match=r"^more than 300 s are too long for .*: split the audio into pieces of 300 s at most, or use a system"
    ):
        recognizer.finish(streams)
    assert streams[0].current().text == text_of([1])
    with pytest.raises(InputError, match="utterance 'long': more than 300 s are too long"):
        list(stream_utterances(recognizer, utterances, piece=1.0))


def test_no_more_is_kept_of_an_utterance_that_is_too_long(system: Any) -> None:
    stream = recognizer_for(system).stream()
    for _ in range(300):
        stream.accept_waveform(np.zeros(8000, dtype=np.float32), 8000)
    assert stream.error is None
    stream.accept_waveform(np.zeros(1, dtype=np.float32), 8000)
    assert stream.error is not None and not len(stream._queue)
    other = stream._recognizer.stream()
    with pytest.raises(InputError, match="more than 300 s"):
        stream.accept_waveform(np.zeros(8000, dtype=np.float32), 8000)
    with pytest.raises(InputError, match="more than 300 s"):
        stream.finish()
    other.accept_waveform(say([2]), 8000)
    assert other.finish().text == text_of([2]), "its slot was free at once"


def test_what_goes_wrong_closes_the_streams_of_its_batch(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = recognizer_for(system)
    stream = recognizer.stream()
    stream.accept_waveform(say([1]), 8000)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no memory"):
        patch.setattr(system, "recognize", no_memory)
        stream.finish()
    other = recognizer.stream()
    other.accept_waveform(say([2]), 8000)
    assert other.finish().text == text_of([2])


def test_batches_are_of_bounded_length_and_little_padding(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "BATCH", 30.0)
    recognizer = recognizer_for(system, 8)
    digits = [[1], [2, 3] * 12, [4], [5], [6, 1] * 12, [2], [3], [4, 5] * 60]
    streams = [recognizer.stream() for _ in digits]
    for number, (stream, said) in enumerate(zip(streams, digits, strict=True)):
        stream.accept_waveform(say(said, seed=number), 8000)
    assert [hypothesis.text for hypothesis in recognizer.finish(streams)] == [text_of(said) for said in digits]
    assert system.sizes == [1, 1, 1, 5], "one is longer than a batch"


def test_nothing_is_said_before_the_end(system: Any) -> None:
    recognizer = recognizer_for(system, 2)
    stream, other = recognizer.stream(), recognizer.stream()
    samples = say([1, 2, 3])
    for start in range(0, len(samples), 160):
        stream.accept_waveform(samples[start : start + 160], 8000)
        assert stream.result().text == "" and not stream.is_ready
    final = stream.finish()
    assert (final.text, final.is_final) == (text_of([1, 2, 3]), True)
    assert all(word.emitted_at == stream.accepted for word in final.words)
    assert other.finish().text == "", "no audio at all"
    again = recognizer.stream()
    again.accept_waveform(np.repeat(say([4]), 2), 16000)
    assert again.finish().text == text_of([4]), "the slot was reused, at another rate"
