"""A clock of a ReaLLM: trained, and run for far longer than it was trained.

    clock.py train CONF --exp EXP [--override KEY=VALUE]…
    clock.py run EXP --times 100 --out FILE

An ordinary PyTorch training loop around ReaLLM.loss: it needs nothing of the toolkit's training of speech systems.
"""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from streams import PROMPTS, Interval, ticks, training_batch

from reallm.config import Config, load
from reallm.data.files import atomic_write
from reallm.errors import InputError, at_least
from reallm.metrics.provenance import git_revision

CONFIG, WEIGHTS, TRAINING = "config.yaml", "decoder.safetensors", "training.json"

logger = logging.getLogger("clock")


def train(conf: Path, exp: Path, overrides: list[str]) -> None:
    """Write the configuration, the decoder's weights, and how long they took. Every update draws its own streams."""
    config = load(conf, overrides)
    seed = int(config.value("training", "seed"))
    torch.manual_seed(seed)
    built = config.build()
    model, settings, data = built["system"], built["training"], built["data"]
    decoder = model.decoder.train()
    exp.mkdir(parents=True, exist_ok=True)
    config.dump(exp / CONFIG)
    optimizer = settings.optimizer(decoder.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: settings.schedule.factor(update, settings.epochs))
    generator = torch.Generator().manual_seed(seed)
    begun = time.monotonic()
    for update in range(1, settings.epochs + 1):
        chosen = torch.randint(len(data["trained"]), (data["batch"],), generator=generator).tolist()
        intervals = [Interval(data["trained"][k], PROMPTS[row % 2]) for row, k in enumerate(chosen)]
        noises = (data["noise"] * torch.rand(len(chosen), generator=generator)).tolist()
        embeddings, lens, responses = training_batch(model, intervals, data["inputs"], noises, generator)
        loss, numbers = model.loss(embeddings, model.lay_out(responses, lens))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        if update % 100 == 0 or update == settings.epochs:
            said = ", ".join(f"{name} {float(numbers[name]):.4f}" for name in ("loss_text", "loss_blank", "accuracy"))
            logger.info("update %d: loss %.4f, %s, %.0f s", update, float(loss.detach()), said, time.monotonic() - begun)
    with atomic_write(exp / TRAINING) as file:
        json.dump({"updates": settings.epochs, "seconds": round(time.monotonic() - begun, 1), "seed": seed, "git": git_revision()}, file)
    with atomic_write(exp / WEIGHTS, "wb") as file:
        file.write(save(decoder.state_dict()))


def run(exp: Path, out: Path, times: int, seed: int = 1000) -> None:
    """Write when the clock ticked in streams of ``times`` the training length: each interval, prompt, and least and most noise."""
    at_least(1, times=times)
    config = Config.read(exp / CONFIG)
    built: dict[str, Any] = config.build("system", "data")
    model, data = built["system"], built["data"]
    if not (exp / WEIGHTS).is_file():
        raise InputError(f"no {exp / WEIGHTS}: train the clock first")
    model.decoder.load_state_dict(load_file(exp / WEIGHTS))
    model.decoder.eval()
    asked = [(Interval(k, prompt), noise) for k in data["trained"] + data["never"] for prompt in PROMPTS for noise in (0.0, data["noise"])]
    inputs, begun = times * data["inputs"], time.process_time()
    generator = torch.Generator().manual_seed(seed)
    found = ticks(model, [interval for interval, _ in asked], inputs, [noise for _, noise in asked], generator)
    seconds = time.process_time() - begun
    streams = [
        {"k": interval.inputs, "prompt": interval.prompt, "noise": noise, "trained": interval.inputs in data["trained"], "ticks": when}
        for (interval, noise), when in zip(asked, found, strict=True)
    ]
    facts = {"trained_inputs": data["inputs"], "inputs": inputs, "window": config.value("system", "decoder", "window", default=0)}
    facts["git"] = git_revision()
    if (exp / TRAINING).is_file():
        facts["training"] = json.loads((exp / TRAINING).read_text())
    with atomic_write(out) as file:
        json.dump({**facts, "streams": streams}, file)
    logger.info("%s: %d streams of %d inputs, %.1f s of one core", out, len(streams), inputs, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train")
    training.add_argument("conf", type=Path)
    training.add_argument("--exp", type=Path, required=True)
    training.add_argument("--override", action="append", default=[], metavar="KEY=VALUE")
    running = verbs.add_parser("run")
    running.add_argument("exp", type=Path)
    running.add_argument("--times", type=int, default=100, help="how many times the training length")
    running.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if arguments.verb == "train":
            train(arguments.conf, arguments.exp, arguments.override)
        else:
            run(arguments.exp, arguments.out, arguments.times)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
