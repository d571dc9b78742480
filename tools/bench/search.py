#!/usr/bin/env python3
"""Search: tokens a second, greedy and with a beam, against transformers' ``generate`` with the same weights.

    tools/bench/search.py --json search.json

The decoder of Speech ReaLLM (80 million random weights, of which it has 33) reads one embedding a row and writes ``--tokens`` tokens:
reallm's searchers, kept from BLANK by a penalty, and LlamaForCausalLM.generate, kept from it by ``suppress_tokens``; on a processor also
reallm's with compiled layers. That all score alike is asserted before anything is timed, and that they write the same: reallm's best, in
whose score is also that of the BLANK behind it, is one of the best of ``generate``.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import _measure
import torch
from _models import build, weight_bytes
from _transformers import llama_of
from torch import Tensor

from reallm.errors import InputError, at_least
from reallm.protocols import ResponseModel
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.compiled.system import with_compiled_layers

NEVER = 1e9  # subtracted from the score of BLANK


def main() -> None:
    parser = _measure.parser(__doc__, repeats=5)
    parser.add_argument("--tokens", type=int, default=100, help="that each row writes; fewer than the decoder's window of positions")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="embeddings that are answered at a time")
    parser.add_argument("--beam", type=int, default=4)
    _measure.run(parser, bench)


@torch.inference_mode()
def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    at_least(1, tokens=arguments.tokens, beam=arguments.beam)
    system = build(arguments.config).to(arguments.device, getattr(torch, arguments.dtype)).eval()
    decoder = system.decoder
    if arguments.tokens >= decoder.window:
        raise InputError(f"--tokens {arguments.tokens}: generate has no window: give fewer than the decoder's {decoder.window} positions")
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            parameter.mul_(2)  # as unlike as the answers of a trained model
    models, llama = {"reallm": ResponseModel(decoder, system.interleaver)}, llama_of(decoder)
    if arguments.device == "cpu" and arguments.dtype == "float32":
        models["reallm compiled"] = ResponseModel(with_compiled_layers(copy.deepcopy(decoder)), system.interleaver)
    bandwidth, timer = _measure.bandwidth(arguments.device), _measure.Timer.of(arguments)
    limit = bandwidth / weight_bytes(decoder)
    report.note(bandwidth_gb_a_second=bandwidth / 1e9, positions_a_second_by_weight_reading=limit)
    for rows in arguments.rows:
        heard = 0.02 * torch.randn(rows, 1, decoder.input_dim, device=arguments.device, dtype=decoder.output.weight.dtype)
        same_logits(decoder, llama, heard)
        for beam in dict.fromkeys((1, arguments.beam)):
            sides = {name: ours(model, heard, arguments.tokens, beam) for name, model in models.items()}
            sides["transformers"] = theirs(llama, system.interleaver.blank_id, heard, arguments.tokens, beam)
            best = theirs(llama, system.interleaver.blank_id, heard, arguments.tokens, beam, returned=beam)().unflatten(0, (rows, beam))
            for name in models if arguments.dtype == "float32" else ():
                if not (sides[name]().unsqueeze(1) == best).all(2).any(1).all():
                    raise InputError(f"beam {beam}, {rows} rows: what {name} writes is not among the best of transformers")
            turns = _measure.alternate({name: lambda w=write: timer(w) for name, write in sides.items()}, arguments.repeats)
            taken = {name: _measure.Spread.of(rows * arguments.tokens / seconds for seconds in turns[name]) for name in sides}
            for name, rate in taken.items():
                ratio = taken["reallm"].median / rate.median
                report.row(side=name, beam=beam, rows=rows, tokens_a_second=rate, limit=rows * limit, ratio=ratio)


def same_logits(decoder: Any, llama: Any, heard: Tensor) -> None:
    """Raises InputError unless both score a sequence alike."""
    tokens = torch.randint(decoder.vocab_size, (heard.size(0), 30), device=heard.device)
    inputs = torch.cat([heard, decoder.embed(tokens)], dim=1)
    ours = decoder(inputs, torch.full((heard.size(0),), inputs.size(1)))
    apart = float((ours - llama(inputs_embeds=inputs).logits).abs().max() / ours.abs().max())
    if apart > (1e-4 if heard.dtype == torch.float32 else 0.1):
        raise InputError(f"transformers scores otherwise: logits are {apart:.2g} apart, as a share of the greatest")


def ours(model: ResponseModel, heard: Tensor, tokens: int, beam: int) -> Callable[[], Tensor]:
    """What writes (B, tokens) ids, the best hypothesis of each row."""
    searcher: Any = (
        GreedySearcher(max_symbols=tokens, blank_penalty=NEVER)
        if beam == 1
        else BeamSearcher(beam, merge="off", max_symbols=tokens, blank_penalty=NEVER, max_pending=tokens + 1)
    )
    lens = torch.ones(heard.size(0), dtype=torch.int64, device=heard.device)

    def write() -> Tensor:
        state = searcher.init_state(model, heard.size(0), 1, heard.device, heard.dtype)
        emission, _ = searcher.step(model, heard, lens, lens.bool(), state)
        return emission.token_ids[:, :tokens]

    return write


def theirs(llama: Any, blank_id: int, heard: Tensor, tokens: int, beam: int, returned: int = 1) -> Callable[[], Tensor]:
    """What writes (B · returned, tokens) ids, the best hypotheses of each row."""
    settings: dict[str, Any] = {"do_sample": False, "num_beams": beam, "num_return_sequences": returned, "use_cache": True}
    settings["suppress_tokens"] = [blank_id]
    attends = torch.ones(heard.shape[:2], dtype=torch.int64, device=heard.device)
    return lambda: llama.generate(inputs_embeds=heard, attention_mask=attends, min_new_tokens=tokens, max_new_tokens=tokens, **settings)


if __name__ == "__main__":
    main()
