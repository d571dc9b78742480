"""What streaming costs, and whether it recognizes what the parallel pass does."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import soxr
import torch

from reallm.protocols import System
from reallm.streaming.offline import recognizer_for
from reallm.streaming.recognizer import device_of
from reallm.streaming.resampler import Audio
from reallm.streaming.simulation import stream_utterances
from reallm.types import Seconds


def real_time_factor(system: System, utterances: Sequence[tuple[Any, Audio, int]], piece: Seconds = 0.02) -> float:
    """Seconds of processor time per second of audio, for one stream on one thread; of the clock, where the system is on an accelerator.

    Args:
        utterances: (key, samples (S,), sample rate), the first of which is streamed once more beforehand, to warm up.
        piece: seconds pushed at a time.
    """
    recognizer = recognizer_for(system)
    clock = time.process_time if recognizer.device.type == "cpu" else time.perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in stream_utterances(recognizer, utterances[:1], piece):
            pass
        begun = clock()
        seconds = sum(seconds for _, _, seconds in stream_utterances(recognizer, utterances, piece))
        return (clock() - begun) / max(seconds, 1e-9)
    finally:
        torch.set_num_threads(threads)


def offline_text(system: System, samples: Audio, sample_rate: int) -> str:
    """What the parallel pass recognizes of a whole utterance, samples (S,) at any rate."""
    if sample_rate != system.sample_rate:
        samples = soxr.resample(samples, sample_rate, system.sample_rate)
    device = device_of(system)
    wav = torch.tensor(samples, device=device)[None]
    emission = system.recognize(wav, torch.tensor([wav.size(1)], device=device))
    return system.tokenizer.decode(emission.token_ids[0, : int(emission.lens[0])].tolist())


def offline_mismatches(system: System, utterances: Iterable[tuple[str, Audio, int]], streamed: dict[str, str]) -> list[str]:
    """The keys of the utterances whose streamed text is not that of the parallel pass."""
    return [key for key, samples, rate in utterances if offline_text(system, samples, rate) != streamed[key]]
