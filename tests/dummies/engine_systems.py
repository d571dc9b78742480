"""Every sort of system that streams, small and talkative, and audio that makes it talk."""

from typing import Any, Unpack

import numpy as np

from reallm.contract.system import talkative
from reallm.registry import find
from reallm.streaming.options import StreamOptions
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Audio
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.types import Hypothesis

SYSTEMS = ["speech_reallm", "speech_reallm beam", "transducer", "transducer beam", "ctc"]


class OfSeveralDelays(SpeechReaLLM):
    """Delays of 0 to 4 token periods, 80 ms each, that sound very different."""

    @classmethod
    def tiny(cls) -> "OfSeveralDelays":
        tiny = SpeechReaLLM.tiny()
        names = ("frontend", "encoder", "adapter", "decoder", "interleaver", "searcher", "tokenizer")
        system = cls(**{name: getattr(tiny, name) for name in names}, delay=2, training_delays=[0, 4])
        assert system.delay_embedding is not None
        system.delay_embedding.weight.data.mul_(50)
        return system


def talkative_system(which: str) -> Any:
    """One of SYSTEMS, or "delays", which is one that lets its streams choose their delay."""
    name, _, search = which.partition(" ")
    system: Any = talkative(OfSeveralDelays if name == "delays" else find("system", name)).float()
    if search:
        system.searcher = find("searcher", search)(beam=3, max_symbols=3)
    return system


def noise(seed: int, samples: int) -> Audio:
    """Audio (S,) that is another one for every seed."""
    found: Audio = (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)
    return found


def alone(system: Any, audio: Audio, rate: int = 8000, **options: Unpack[StreamOptions]) -> Hypothesis:
    """What a recognizer of one stream finds."""
    stream = Recognizer(system).stream(**options)
    stream.accept_waveform(audio, rate)
    return stream.finish()
