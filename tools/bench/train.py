#!/usr/bin/env python3
"""Training: seconds of audio a second, padding, memory, against SpeechBrain's Conformer-Transducer on the same batches.

    tools/bench/train.py --json train.json
    tools/bench/train.py --device cuda --dtype bfloat16 --batch-seconds 1600 --json train.json

Both of 80 million random weights, with the same chunks and left context, AdamW, and dtype bfloat16 as autocast. Utterances are noise of
the lengths of LibriSpeech, in the batches that the recipe's sampler makes. A step is in three parts:

    encoder      features, encoder (and adapter): forward, and backward from the gradient of what they gave
    loss         decoder, or predictor and joiner, and the loss: forward, and backward to what the encoder gave
    optimizer    its step

``memory`` is the highest on an accelerator; else what the forward pass keeps for the backward pass.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import _measure
import numpy as np
import torch
from _models import TOKENS_A_SECOND, VOCABULARY, build, parameters
from torch import Tensor, nn

from reallm.data.sampler import schedule
from reallm.errors import at_least
from reallm.types import Alignment, Batch

RATE = 16000
PARTS = ("encoder", "loss", "optimizer")


class Side(NamedTuple):
    """A model in training."""

    model: nn.Module
    encode: Callable[[Batch], tuple[Tensor, Tensor]]  # what the encoder gives, and its lens
    loss: Callable[[Batch, Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer


def main() -> None:
    parser = _measure.parser(__doc__, repeats=3, profiles=True)
    parser.add_argument("--batch-seconds", type=float, default=60.0, help="of audio in a batch, padding included")
    parser.add_argument("--utterances", type=int, default=4000, help="of the epoch whose batches are made")
    parser.add_argument("--buckets", type=int, default=30, help="of lengths, as egs/librispeech has")
    _measure.run(parser, bench)


def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    at_least(1, batch_seconds=arguments.batch_seconds, utterances=arguments.utterances, buckets=arguments.buckets)
    durations = lengths(arguments.utterances)
    batches = schedule(durations.tolist(), 1, 0, arguments.batch_seconds, arguments.buckets)
    padded = sum(len(batch) * durations[batch].max() for batch in batches)
    report.note(batches=len(batches), padding_percent=100 * float(1 - durations.sum() / padded))
    middle = sorted(batches, key=lambda chosen: float(durations[chosen].sum()))[len(batches) // 2]
    batch = made(durations[middle], VOCABULARY[arguments.config]).to(arguments.device)
    sides = {"reallm": reallm_side(arguments.config, arguments.device), "speechbrain": speechbrain_side(arguments.config, arguments.device)}
    keeps = {name: kept(side, batch, arguments) for name, side in sides.items()}
    turn = {name: lambda s=side: step(s, batch, arguments) for name, side in sides.items()}
    turns = _measure.alternate(turn, arguments.repeats)
    seconds = float(batch.wav_lens.sum()) / RATE
    report.note(batch_seconds_of_audio=seconds, utterances=len(batch.ids))
    speeds = {name: _measure.Spread.of(seconds / sum(taken) for taken in turns[name]) for name in sides}
    for name, side in sides.items():
        report.row(
            side=name,
            audio_seconds_a_second=speeds[name],
            ratio=speeds["reallm"].median / speeds[name].median,
            **{f"{part}_ms": _measure.Spread.of((taken[at] for taken in turns[name]), 1000) for at, part in enumerate(PARTS)},
            memory_mb=keeps[name] / 2**20,
            million_parameters=parameters(side.model) / 1e6,
        )
    _measure.profile(arguments, turn)


def lengths(utterances: int) -> np.ndarray:
    """Seconds of each: LibriSpeech's are 12.3 on average, most of them between 12 and 16.5, the others shorter."""
    random = np.random.default_rng(0)
    short, long = random.uniform(1.5, 12, utterances), random.triangular(12, 15.5, 16.5, utterances)
    return np.where(random.random(utterances) < 0.33, short, long).round(2)


def made(durations: np.ndarray, vocabulary: int) -> Batch:
    """Noise of these lengths with evenly spoken tokens."""
    random = np.random.default_rng(0)
    lens = (durations * RATE).astype(np.int64)
    wav = np.zeros((len(lens), int(lens.max())), dtype=np.float32)
    alignments, texts = [], []
    for row, samples in zip(wav, lens.tolist(), strict=True):
        row[:samples] = 0.1 * random.standard_normal(samples)
        count = max(1, round(samples / RATE * TOKENS_A_SECOND))
        ids = torch.from_numpy(random.integers(0, vocabulary, count))
        edges = torch.arange(count + 1) * samples // count
        alignments.append(Alignment(ids, edges[:-1], edges[1:], torch.zeros(count, dtype=torch.float64), RATE))
        texts.append(" ".join(f"w{token}" for token in ids.tolist()))
    return Batch([str(n) for n in range(len(lens))], torch.from_numpy(wav), torch.from_numpy(lens), texts, alignments)


def reallm_side(config: str, device: str) -> Side:
    """Speech ReaLLM: ``loss`` of the system, in two parts."""
    system = build(config).to(device).train()

    def loss(batch: Batch, speech: Tensor, lens: Tensor) -> Tensor:
        delay = torch.full((len(batch.ids),), system.delay)
        laid_out = system.interleaver.build(batch.alignments, lens.cpu(), delay, system.period_samples)
        return system._model.loss(speech, laid_out)[0]

    return Side(system, lambda batch: system.adapter.forward(*system.hear(batch, system.draw_chunk())), loss, adamw(system))


def speechbrain_side(config: str, device: str) -> Side:
    """The transducer as SpeechBrain's recipe trains it, with the chunks of the other side."""
    from _speechbrain import ConformerTransducer
    from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
    from torchaudio.functional import rnnt_loss

    model = ConformerTransducer(config).to(device).train()
    chunks = DynChunkTrainConfig(24, 4)

    def encode(batch: Batch) -> tuple[Tensor, Tensor]:
        relative = batch.wav_lens / batch.wav.size(1)
        feats = model.front_end(model.normalize(model.fbank(batch.wav), relative, epoch=9))
        enc = model.project_encoder(model.encoder(feats, relative, dynchunktrain_config=chunks))
        return enc, (relative * enc.size(1)).round().int()

    def loss(batch: Batch, enc: Tensor, lens: Tensor) -> Tensor:
        assert batch.alignments is not None
        ids = [alignment.token_ids + 1 for alignment in batch.alignments]  # 0 is BLANK
        tokens = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(enc.device)
        text, _ = model.predictor(model.embedding(nn.functional.pad(tokens, (1, 0))))
        logits = model.output(model.joiner(enc.unsqueeze(2), model.project_predictor(text).unsqueeze(1))).float()
        return rnnt_loss(logits, tokens.int(), lens, torch.tensor([len(i) for i in ids], dtype=torch.int32, device=enc.device), blank=0)

    return Side(model, encode, loss, adamw(model))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """As the recipe's."""
    return torch.optim.AdamW(model.parameters(), lr=1e-5)


def autocast(arguments: argparse.Namespace) -> Any:
    """Of the forward pass."""
    half = arguments.dtype == "bfloat16"
    return torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=half)


def step(side: Side, batch: Batch, arguments: argparse.Namespace) -> list[float]:
    """One update: seconds of its PARTS."""
    timer = _measure.Timer.of(arguments)
    begun = timer.now()
    with autocast(arguments):
        enc, lens = side.encode(batch)
    encoded = timer.now()
    heard = enc.detach().requires_grad_()  # so that each part goes back alone, to the same gradients
    with autocast(arguments):
        loss = side.loss(batch, heard, lens)
    loss.backward()
    judged = timer.now()
    enc.backward(heard.grad)
    back = timer.now()
    side.optimizer.step()
    side.optimizer.zero_grad()
    return [encoded - begun + back - judged, judged - encoded, timer.now() - back]


def kept(side: Side, batch: Batch, arguments: argparse.Namespace) -> float:
    """Bytes: the highest of a step on an accelerator, else of what the forward pass keeps, weights aside."""
    if torch.device(arguments.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(side, batch, arguments)
        return float(torch.cuda.max_memory_allocated())
    with autocast(arguments):
        return _measure.kept_for_backward(side.model, lambda: side.loss(batch, *side.encode(batch)))


if __name__ == "__main__":
    main()
