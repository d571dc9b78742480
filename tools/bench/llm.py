#!/usr/bin/env python3
"""What an LLM as a decoder takes: bench/llm.py --llm DIR [--device cuda] [--rows B] [--positions L] [--window W] [--streams N]

A training step with LoRA on random embeddings (forward, backward, AdamW): seconds and the highest memory. Then streams that step together
until their window is full: milliseconds for a position of all of them, and the real-time factor of each, which is that of all: they step
together. Only the decoder is measured. An LLM of 7 billion random weights, 13 GB:

    tools/llm_config.py llama --out llm7b --weights
    tools/bench/llm.py --llm llm7b --device cuda
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--rows", type=int, default=27, help="utterances in a batch: 27 of 15 s are 400 s")
    parser.add_argument("--positions", type=int, default=123, help="of an utterance: 63 speech embeddings and 60 tokens")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--rate", type=float, default=8.2, help="positions in a second of speech: 1 / 0.24, and 4 tokens")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    import torch

    from reallm.decoders._huggingface_llm import read_config
    from reallm.decoders.huggingface import HuggingFaceDecoder
    from reallm.errors import InputError

    device = torch.device(arguments.device)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def highest() -> float:
        """GiB since the last call, on an accelerator; else of the process, ever."""
        if device.type != "cuda":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        peak = torch.cuda.max_memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
        return peak

    try:
        config = arguments.llm / "config.json"
        decoder: Any = HuggingFaceDecoder(
            int(read_config(config).vocab_size) + 1,
            config,
            str(arguments.llm),
            window=arguments.window,
            lora_rank=arguments.lora_rank,
            dtype=arguments.dtype,
            gradient_checkpointing=True,
        )
    except InputError as error:
        sys.exit(f"error: {error}")
    decoder.to(device).train()
    weights = sum(parameter.numel() for parameter in decoder.parameters())
    print(f"{weights / 1e9:.2f} billion weights, {arguments.dtype}, on {device}: {highest():.2f} GiB")

    trained = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    rows, positions = arguments.rows, arguments.positions
    inputs = torch.randn(rows, positions, decoder.input_dim, device=device, requires_grad=True)
    targets = torch.randint(decoder.vocab_size, (rows, positions), device=device)
    lens = torch.full((rows,), positions, device=device)
    seconds = []
    for _ in range(arguments.repeats):
        start = now()
        with torch.autocast(device.type, torch.bfloat16):
            logits = decoder(inputs, lens).float()
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(now() - start)
    best = min(seconds)
    speed = f"{best:.3f} s, {rows * positions / best:.0f} positions a second"
    print(f"training step, {rows} × {positions} positions: {speed}, {highest():.2f} GiB")
    del logits, inputs, targets, optimizer  # of which a stream has nothing
    if device.type == "cuda":
        torch.cuda.empty_cache()
        highest()

    decoder.eval()
    active = torch.ones(arguments.streams, dtype=torch.bool, device=device)
    with torch.inference_mode():
        state = decoder.init_state(arguments.streams, device)
        x = torch.randn(arguments.streams, decoder.input_dim, device=device)
        for _ in range(arguments.window):
            _, state = decoder.step(x, active, state)
        start = now()
        for _ in range(10 * arguments.repeats):
            _, state = decoder.step(x, active, state)
        step = (now() - start) / (10 * arguments.repeats)
    speed = f"{1000 * step:.2f} ms a position of all, real-time factor of each {step * arguments.rate:.3f}"
    print(f"{arguments.streams} streams, window {arguments.window}: {speed}, {highest():.2f} GiB")


if __name__ == "__main__":
    main()
