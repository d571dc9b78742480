#!/usr/bin/env python3
"""One stream: what a second of audio takes, and how long a push does, against SpeechBrain and transformers.

    tools/bench/stream.py --json stream.json

Speech ReaLLM of 80 million random weights through the recognizer, one chunk a push, with greedy and with speculative greedy search,
each with compiled layers too (reallm/streaming/compiled), with int8 weights, and with both; the same system whose decoder is transformers'
LlamaForCausalLM with a dynamic cache, and the same weights; SpeechBrain's streaming Conformer-Transducer of as many parameters through its
StreamingASR. All see as much left context, are in the same precision but for the row that says so, and say 4 tokens a second, by force.
They take turns at one endless stream each, which has filled all windows before the first measurement. A row is a side and a chunk size:

    ms/s         milliseconds a second of audio: median of the turns, least and most
    p50, p99     milliseconds of a push
    limit        milliseconds a second of audio in which this machine reads the weights, once a chunk, and once a pass of the decoder
    reads        passes over the decoder's weights a second of audio, counted
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import _measure
import numpy as np
import torch
from _models import build, paced, parameters, weight_bytes
from torch import nn

from reallm.errors import InputError
from reallm.layers.int8_linear import with_int8_weights
from reallm.protocols import ChunkSpec
from reallm.searchers.speculative_greedy import SpeculativeGreedySearcher
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.recognizer import Recognizer

NEAR = 0.06  # how far the numbers of parameters may be apart


class Side(NamedTuple):
    """Something that hears chunks."""

    push: Callable[[np.ndarray], object]
    samples: int  # of one push
    rate: int
    model: nn.Module
    bytes_a_second: float  # weights read in a second of audio, the decoder's aside
    bytes_a_pass: float  # of the decoder
    passes: list[None]  # over the decoder's weights, counted


def main() -> None:
    parser = _measure.parser(__doc__, repeats=5, profiles=True)
    parser.add_argument("--chunks", type=int, nargs="+", default=[6, 12, 24], metavar="FRAMES", help="chunk sizes, encoder frames of 40 ms")
    parser.add_argument("--seconds", type=float, default=8.0, help="of audio in a turn")
    parser.add_argument("--warm-up", type=float, default=20.0, help="seconds of audio before the first turn")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=["compiled", "int8", "transformers", "speechbrain"], help="sides that are left out"
    )
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    timer, bandwidth = _measure.Timer.of(arguments), _measure.bandwidth(arguments.device)
    report.note(bandwidth_gb_a_second=bandwidth / 1e9)
    for chunk in arguments.chunks:
        sides = make_sides(arguments, chunk)
        same_size(arguments, {name: side.model for name, side in sides.items() if "int8" not in name})
        for side in sides.values():
            listen(side, arguments.warm_up, timer)
            side.passes.clear()
        turn = {name: lambda s=side: listen(s, arguments.seconds, timer) for name, side in sides.items()}
        turns = _measure.alternate(turn, arguments.repeats)
        heard = {name: (1 + arguments.repeats) * seconds_of(side, arguments.seconds) for name, side in sides.items()}
        reads = {name: len(side.passes) / heard[name] for name, side in sides.items()}
        taken = {}
        for name, side in sides.items():
            pushes = [1000 * seconds for one in turns[name] for seconds in one]
            a_second = [1000 * sum(one) / (len(one) * side.samples / side.rate) for one in turns[name]]
            taken[name] = _measure.Spread.of(a_second)
            report.row(
                side=name,
                chunk_ms=40 * chunk,
                ms_a_second=taken[name],
                p50_ms=_measure.percentile(pushes, 50),
                p99_ms=_measure.percentile(pushes, 99),
                limit_ms_a_second=1000 * (side.bytes_a_second + reads[name] * side.bytes_a_pass) / bandwidth,
                reads_a_second=reads[name],
                ratio=taken[name].median / taken["reallm"].median,
                million_parameters=parameters(side.model) / 1e6,
            )
        if chunk == arguments.chunks[0]:
            _measure.profile(arguments, {f"{name}, chunks of {40 * chunk} ms": one for name, one in turn.items()})


def listen(side: Side, seconds: float, timer: _measure.Timer) -> list[float]:
    """The next ``seconds`` of a stream of noise: seconds that each push takes."""
    count = round(seconds_of(side, seconds) * side.rate / side.samples)
    chunks = (0.1 * np.random.default_rng(0).standard_normal((count, side.samples))).astype(np.float32)
    return [timer(lambda c=chunk: side.push(c)) for chunk in chunks]


def seconds_of(side: Side, seconds: float) -> float:
    """About ``seconds``, in whole pushes."""
    return max(1, round(seconds * side.rate / side.samples)) * side.samples / side.rate


def same_size(arguments: argparse.Namespace, models: dict[str, nn.Module]) -> None:
    """Raises InputError unless all have about as many parameters."""
    counts = {name: parameters(model) for name, model in models.items()}
    if arguments.config != "tiny" and max(counts.values()) > (1 + NEAR) * min(counts.values()):
        raise InputError(f"models of unlike sizes: {counts}")


def make_sides(arguments: argparse.Namespace, chunk: int) -> dict[str, Side]:
    """The sides, each about to hear its stream."""
    system = build(arguments.config).to(arguments.device, getattr(torch, arguments.dtype)).eval()
    system.encoder.chunk = ChunkSpec(chunk, system.encoder.chunk.left)
    greedy, sides = system.searcher, {}
    searchers = {"": greedy, "speculative": SpeculativeGreedySearcher(ahead=chunk // system.adapter.stride + 1)}
    for search, searcher in searchers.items():
        system.searcher = searcher
        for weights in ("", "int8"):
            for layers in ("", "compiled"):
                if {weights, layers}.isdisjoint(arguments.without):
                    made = copy.deepcopy(system)
                    made = with_int8_weights(made) if weights else made
                    made = with_compiled_layers(made) if layers else made
                    sides[" ".join(filter(None, (search, layers, weights))) or "reallm"] = recognizer_side(paced(made))
    system.searcher = greedy
    if "transformers" not in arguments.without:
        from _transformers import TransformersDecoder

        twin = TransformersDecoder(system.decoder)
        same_logits(system.decoder, twin)
        system.decoder = twin
        sides["transformers"] = recognizer_side(paced(system))
    if "speechbrain" not in arguments.without:
        sides["speechbrain"] = speechbrain_side(arguments, chunk, system.encoder.chunk.left)
    return sides


@torch.inference_mode()
def same_logits(decoder: Any, twin: Any) -> None:
    """Raises InputError unless both decoders answer alike until well beyond their window."""
    parameter = next(decoder.parameters())
    states = [part.init_state(1, parameter.device, parameter.dtype) for part in (decoder, twin)]
    active = torch.ones(1, dtype=torch.bool, device=parameter.device)
    for _ in range(decoder.window + 8):
        inputs = 0.02 * torch.randn(1, decoder.input_dim, device=parameter.device, dtype=parameter.dtype)
        (ours, states[0]), (theirs, states[1]) = (part.step(inputs, active, s) for part, s in zip((decoder, twin), states, strict=True))
        apart = float((ours - theirs).abs().max() / ours.abs().max())
        if apart > (1e-4 if parameter.dtype == torch.float32 else 0.1):
            raise InputError(f"transformers' decoder answers otherwise: logits are {apart:.2g} apart, as a share of the greatest")


def recognizer_side(system: Any) -> Side:
    """A Speech ReaLLM that says 4 tokens a second."""
    stream, passes = Recognizer(system).stream(), counted(system.decoder.decoder, "step", "extend")

    def push(samples: np.ndarray) -> object:
        stream.accept_waveform(samples, system.sample_rate)
        return stream.result().text

    read = system.sample_rate / system.chunk_samples * weight_bytes(system.encoder, system.adapter)
    return Side(push, system.chunk_samples, system.sample_rate, system, read, weight_bytes(system.decoder), passes)


def counted(module: Any, *methods: str) -> list[None]:
    """One item for every call of the methods from now on."""
    calls: list[None] = []
    for name in (name for name in methods if hasattr(module, name)):
        method = getattr(module, name)
        setattr(module, name, lambda *given, m=method: (calls.append(None), m(*given))[1])
    return calls


def speechbrain_side(arguments: argparse.Namespace, chunk: int, left: int) -> Side:
    """SpeechBrain's, with at least as many left frames as whole chunks of them make."""
    from _speechbrain import FRAMES_A_SECOND, ConformerTransducer, push_all, streaming_asr
    from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

    if arguments.dtype != "float32":
        raise InputError(f"dtype {arguments.dtype}: SpeechBrain's StreamingASR computes in float32 only, add --without speechbrain")
    model = ConformerTransducer(arguments.config)
    asr = streaming_asr(model, arguments.device)
    spec = DynChunkTrainConfig(chunk, -(-left // chunk))
    context, samples = asr.make_streaming_context(spec), asr.get_chunk_size_frames(spec)
    answers = asr.hparams.decoding_function.__self__.classifier_network[0].speaks
    outputs = FRAMES_A_SECOND * len(answers) / answers.count(False)  # BLANK ends the answer to each frame
    read = 16000 / samples * weight_bytes(model.front_end, model.transformer, model.project_encoder) + outputs * weight_bytes(model.output)
    return Side(
        lambda chunk: push_all(asr, context, torch.from_numpy(chunk)),
        samples,
        16000,
        model,
        read,
        weight_bytes(model.predictor, model.project_predictor),
        counted(model.predictor, "forward"),
    )


if __name__ == "__main__":
    main()
