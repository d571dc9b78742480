#!/usr/bin/env python3
"""The memory that a Speech ReaLLM on an LLM needs, counted without a weight: llm_memory.py CONF [--override KEY=VALUE]…

CONF is a configuration with the decoder 'huggingface' and the keys frontend, encoder and adapter; what it freezes is not trained. Of
the LLM only its config.json is read (tools/llm_config.py makes one). Everything is built and run on torch's meta device, which has
shapes alone; what the backward pass needs is what torch saves. Not counted: gaps of the allocator, the CUDA context (about 1 GiB). In
mixed precision activations take less than is said here.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

GIB = 2**30
FLOAT32, ADAMW = 4, 16  # bytes of a weight, and of one that is trained, its gradient and the two averages of AdamW


def around(name: str, weights: int, frozen: bool) -> tuple[str, float]:
    """What a part around the LLM takes beside its activations."""
    what = "frozen" if frozen else "gradients, AdamW"
    return f"{name}: {weights / 1e6:.0f} M weights, {what}", weights * (FLOAT32 if frozen else ADAMW)


def saved_by(run: Callable[[], Any], modules: list[Any]) -> int:
    """Bytes that the backward pass of ``run`` will need, the weights of ``modules`` not counted."""
    import torch

    weights = {parameter.untyped_storage()._cdata for module in modules for parameter in module.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


def count(config: Any, utterance: float, tokens: float) -> list[tuple[str, float]]:
    """(what, bytes), in the order in which they are printed."""
    import torch

    from reallm.decoders import _huggingface_llm as llms

    def of_decoder(name: str, default: Any) -> Any:
        return config.value("decoder", name, default=default)

    still = config.value("training", "frozen", default=None) or []
    llm_config = llms.read_config(Path(of_decoder("config", "")))
    rank, dtype = of_decoder("lora_rank", 0), getattr(torch, of_decoder("dtype", "float32"))
    seconds = float(config.value("data", "max_duration"))
    rows = math.ceil(seconds / utterance)
    built = config.build("frontend")
    with torch.device("meta"):
        built |= config.build("encoder")
        encoder: Any = built["encoder"].train()
        llm: Any = llms.empty(llm_config, dtype)
        dim = llm.get_input_embeddings().weight.size(1)
        if rank:
            llms.add_lora(llm, rank, of_decoder("lora_alpha", 32.0), of_decoder("lora_targets", None))
        for name, part in (("encoder", encoder), ("decoder", llm)):
            if name in still:
                part.requires_grad_(False)
        frame = built["frontend"].frame_shift / built["frontend"].sample_rate
        feats = torch.zeros(rows, math.ceil(utterance / frame), encoder.input_dim)
        lens = torch.full((rows,), feats.size(1))
        heard = saved_by(lambda: encoder.forward(feats, lens, encoder.chunk), [encoder])
        period = config.value("adapter", "stride") * encoder.geometry.stride * frame
        length = math.ceil(utterance / period + utterance * tokens)
        inputs = torch.zeros(rows, length, dim, dtype=dtype, requires_grad=True)

        def read() -> None:
            mask = torch.ones(1, 1, length, length, dtype=torch.bool)
            llm(inputs_embeds=inputs, attention_mask=mask, position_ids=torch.arange(length).unsqueeze(0), use_cache=False)

        llm.train()
        everything = saved_by(read, [llm])
        if of_decoder("gradient_checkpointing", False):
            llms.compute_layers_twice(llm)
            inside = saved_by(read, [llm])
            read_again = (everything - inside) / llm_config.num_hidden_layers
        else:
            inside, read_again = everything, 0
    frozen = sum(p.numel() for p in llm.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in llm.parameters() if p.requires_grad)
    of_encoder = sum(p.numel() for p in encoder.parameters())
    of_adapter = encoder.output_dim * config.value("adapter", "stride") * dim
    positions, window = rows * length, of_decoder("window", 1024) or of_decoder("capacity", 0)
    ring = sum(heads * (key + value) for heads, key, value in llms.cache_shapes(llm_config)) * window * dtype.itemsize
    mine = "LoRA" if rank else "LLM"
    name = str(dtype).removeprefix("torch.")
    training = [
        (f"LLM, frozen: {frozen / 1e9:.2f} billion weights, {name}", frozen * dtype.itemsize),
        (f"{mine}: {trained / 1e6:.0f} M weights, gradients, AdamW", trained * ADAMW),
        around("encoder", of_encoder, "encoder" in still),
        around("adapter", of_adapter, "adapter" in still),
        (f"encoder's activations, {rows} × {utterance:g} s", heard),
        (f"LLM's activations, {rows} × {length} positions", inside),
        ("one layer computed again", read_again),
        # The logits, in float32 too, their log-probabilities, and the gradients of all three.
        (f"logits, {llm_config.vocab_size + 1} a position", positions * (llm_config.vocab_size + 1) * 2 * (dtype.itemsize + 8)),
    ]
    return [
        *training,
        ("training, in all", sum(size for _, size in training)),
        (f"a stream's keys and values, {window} positions", ring),
        ("one stream, in all", (frozen + trained) * dtype.itemsize + (of_encoder + of_adapter) * FLOAT32 + ring),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conf", type=Path)
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--utterance", type=float, default=15.0, metavar="SECONDS", help="of a training utterance (LibriSpeech: up to 35)")
    parser.add_argument("--tokens", type=float, default=4.0, metavar="N", help="of text in a second of speech")
    arguments = parser.parse_args()
    from reallm.config import load
    from reallm.errors import InputError

    try:
        with warnings.catch_warnings(action="ignore"):
            rows = count(load(arguments.conf, arguments.override), arguments.utterance, arguments.tokens)
    except InputError as error:
        sys.exit(f"error: {error}")
    for what, size in rows:
        print(f"{size / GIB:8.2f} GiB  {what}")


if __name__ == "__main__":
    main()
