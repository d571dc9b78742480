"""Encoders, interleavers and searchers under the engine: a stream gets what it gets alone, whatever the others do."""

from typing import Any

import numpy as np
import pytest
import torch

from reallm.contract.component import tiny
from reallm.registry import catalogue, find
from reallm.streaming.engine import Engine
from tests.dummies.engine_systems import alone, noise

KINDS = ["encoder", "interleaver", "searcher"]


def system_with(kind: str, name: str) -> Any:
    """A small Speech ReaLLM that says this and that, with one component of its own choice."""
    torch.manual_seed(1)
    tokenizer = find("tokenizer", "character").tiny()
    blank = tokenizer.vocab_size
    encoder: Any = tiny(find("encoder", name if kind == "encoder" else "conformer"), seed=1).float()
    interleaver: Any = find("interleaver", name if kind == "interleaver" else "blank")
    system: Any = find("system", "speech_reallm")(
        frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
        encoder=encoder,
        adapter=find("adapter", "stack")(input_dim=encoder.output_dim, output_dim=16, stride=1),
        decoder=find("decoder", "llama")(vocab_size=blank + 1, dim=16, layers=2, heads=2, window=16),
        interleaver=interleaver(blank_id=blank),
        searcher=find("searcher", name if kind == "searcher" else "greedy").tiny(),
        tokenizer=tokenizer,
    )
    for parameter in system.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3.0)
    return system.eval()


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in catalogue(kind)])
def test_a_stream_gets_what_it_gets_alone(kind: str, name: str) -> None:
    system, random = system_with(kind, name), np.random.default_rng(0)
    rate = system.sample_rate
    audio = [noise(number, samples) for number, samples in enumerate((rate // 2, 0, rate // 3 + 33))]
    engine = Engine(system, slots=2)
    waiting, active, texts = list(range(len(audio))), {}, {}
    while waiting or active:
        while waiting and engine.active < 2:
            job = waiting.pop(0)
            active[job] = (engine.stream(), audio[job])
        for job, (stream, rest) in list(active.items()):
            size = int(random.integers(1, rate // 3))
            stream.push(rest[:size], rate)
            active[job] = (stream, rest[size:])
            if not len(rest[size:]):
                texts[job] = active.pop(job)[0].finish().text
        engine.step()
    assert [texts[job] for job in range(len(audio))] == [alone(system, one, rate).text for one in audio]
    assert any(texts.values()), "nothing was said"
