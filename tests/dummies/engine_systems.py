"""Every sort of system that streams, small and talkative, and audio that makes it talk."""

from typing import Any

import numpy as np

from reallm.contract.system import talkative
from reallm.registry import find
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Audio
from reallm.types import Hypothesis

SYSTEMS = ["speech_reallm", "speech_reallm beam", "transducer", "transducer beam", "ctc"]


def talkative_system(which: str) -> Any:
    """One of SYSTEMS."""
    name, _, search = which.partition(" ")
    system: Any = talkative(find("system", name)).float()
    if search:
        system.searcher = find("searcher", search)(beam=3, max_symbols=3)
    return system


def noise(seed: int, samples: int) -> Audio:
    """Audio (S,) that is another one for every seed."""
    found: Audio = (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)
    return found


def alone(system: Any, audio: Audio, rate: int = 8000) -> Hypothesis:
    """What a recognizer of one stream finds."""
    stream = Recognizer(system).stream()
    stream.accept_waveform(audio, rate)
    return stream.finish()
