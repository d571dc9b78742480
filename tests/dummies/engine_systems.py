"""Every sort of system that streams, small and talkative, and audio that makes it talk."""

from typing import Any, Unpack

import numpy as np

from reallm.contract.system import talkative
from reallm.layers.int8_linear import with_int8_weights
from reallm.registry import find
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.options import StreamOptions
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Audio
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.types import Hypothesis

SYSTEMS = ["speech_reallm", "speech_reallm beam", "speech_reallm ahead", "transducer", "transducer beam", "ctc"]


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


class SeveralPositionsAhead(SpeechReaLLM):
    """Several positions a pass of the decoder, which is so wide that last bits hang on where in its pass a position lies."""

    @classmethod
    def tiny(cls) -> "SeveralPositionsAhead":
        tiny = SpeechReaLLM.tiny()
        dim, blank_id = 128, tiny.tokenizer.vocab_size
        decoder: Any = find("decoder", "llama")(vocab_size=blank_id + 1, dim=dim, layers=2, heads=4, window=32)
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(3.0)  # or it would answer all embeddings alike, and no pass would end before another one
        return cls(
            frontend=tiny.frontend,
            encoder=tiny.encoder,
            adapter=find("adapter", "stack")(input_dim=tiny.encoder.output_dim, output_dim=dim, stride=1),
            decoder=decoder,
            interleaver=tiny.interleaver,
            searcher=find("searcher", "speculative_greedy")(ahead=5, max_symbols=3),
            tokenizer=tiny.tokenizer,
        )


COMPILED = ["speech_reallm, compiled", "speech_reallm ahead, compiled", "ctc, int8, compiled"]


def talkative_system(which: str) -> Any:
    """One of SYSTEMS or of COMPILED, or "delays", which is one that lets its streams choose their delay."""
    which, *changes = which.split(", ")
    system = _talkative_system(which)
    system = with_int8_weights(system) if "int8" in changes else system
    return with_compiled_layers(system) if "compiled" in changes else system


def _talkative_system(which: str) -> Any:
    name, _, search = which.partition(" ")
    own = {"delays": OfSeveralDelays, "speech_reallm ahead": SeveralPositionsAhead}
    system: Any = talkative(own.get(which) or find("system", name)).float()
    if search == "beam":
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
