"""The resampler and the queue give the same samples however they were cut."""

import numpy as np
import pytest
import soxr
import torch

from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Resampler
from reallm.streaming.sample_queue import SampleQueue
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.recognizer import LevelSystem


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
@pytest.mark.parametrize("piece", [1, 137, 977, 8000, 10**6])
def test_streamed_is_whole(rate: int, piece: int) -> None:
    audio = (np.random.default_rng(0).normal(size=2 * rate // (20 if piece == 1 else 1)) * 0.1).astype(np.float32)
    resampler = Resampler(rate, 8000)
    pieces = [resampler.push(audio[begin : begin + piece]) for begin in range(0, len(audio), piece)]
    streamed = np.concatenate([*pieces, resampler.finish()])
    whole = audio if rate == 8000 else soxr.resample(audio, rate, 8000)
    assert np.array_equal(streamed, whole)


def test_the_recognizer_hears_the_end_of_resampled_audio() -> None:
    system = LevelSystem(CharacterTokenizer.tiny()).eval()
    heard: list[torch.Tensor] = []
    step = system.step

    def listening(wav: torch.Tensor, lens: torch.Tensor, final: torch.Tensor, state: object) -> object:
        heard.append(wav[0, : int(lens[0])].clone())
        return step(wav, lens, final, state)

    system.step = listening
    audio = (np.random.default_rng(0).normal(size=33333) * 0.1).astype(np.float32)
    stream = Recognizer(system).stream()
    stream.accept_waveform(audio, 44100)
    stream.finish()
    whole = soxr.resample(audio, 44100, 8000)
    samples = torch.cat(heard).numpy()
    assert np.array_equal(samples[: len(whole)], whole)
    assert len(samples) == len(whole) + system.flush_samples(len(whole))
    assert not samples[len(whole) :].any()


@pytest.mark.parametrize("seed", range(20))
def test_queue_is_first_in_first_out(seed: int) -> None:
    queue, pushed, taken = SampleQueue(), 0, []
    random = np.random.default_rng(seed)
    actions = np.where(random.random(30) < 0.6, -1, random.integers(0, 30, 30)).tolist()
    for action in actions:
        if action >= 0:
            queue.push(np.arange(pushed, pushed + action, dtype=np.float32))
            pushed += action
        else:
            chunk = np.zeros(7, dtype=np.float32)
            taken += chunk[: queue.take_into(chunk)].tolist()
        assert len(queue) == pushed - len(taken)
    assert taken == list(range(len(taken)))
