"""The contract of systems: what is trained and recognizes speech; more of those that stream. Legend: reallm/types.py."""

from typing import Any

import torch
from torch import Tensor

from reallm.contract.component import tiny
from reallm.contract.emissions import Answers, Backlog, collect, require_same_answers, require_well_formed
from reallm.contract.operation import GARBAGE, require_gradients, take
from reallm.contract.requirement import require, require_equal
from reallm.contract.state_algebra import require_state_algebra
from reallm.contract.tokenizer import texts
from reallm.protocols import streams
from reallm.streaming.context import length_mask
from reallm.streaming.state import batch_size
from reallm.types import Alignment, Batch, Emission


def talkative(cls: Any) -> Any:
    """A tiny system whose random weights are so large that it says this and that.

    Raises ContractError when none of some seeds says anything: then nothing could be compared.
    """
    for seed in range(8):
        system = tiny(cls, seed)
        for parameter in system.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(3.0)
        if len({token for answers in collect(system.recognize(*audio(system))) for token in answers.token_ids}) > 1:
            return system
    require(False, f"no tiny {cls.__qualname__} of 8 said two different tokens about noise: let tiny() be random")


def audio(system: Any) -> tuple[Tensor, Tensor]:
    """Noise (B, S) of varying loudness, lens (B,) samples that end anywhere, one of them 0."""
    chunk = system.chunk_samples if streams(system) else 4 * system.period_samples
    lens = torch.tensor([3 * chunk + 17, 0, 1, 2 * chunk, chunk + system.period_samples // 2])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(lens), int(lens.max()), generator=generator, dtype=torch.float64)
    loudness = torch.rand(len(lens), -(-int(lens.max()) // 800), generator=generator, dtype=torch.float64).repeat_interleave(800, dim=1)
    wav = 0.3 * loudness[:, : noise.size(1)] * noise
    return wav.masked_fill(~length_mask(lens, wav.size(1)), 0), lens


def with_flush(system: Any, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """The audio with the zeros that ``finish()`` pushes."""
    flushed = torch.tensor([n + system.flush_samples(n) for n in lens.tolist()])
    return torch.nn.functional.pad(wav, (0, int(flushed.max()) - wav.size(1))), flushed


def stream(system: Any, wav: Tensor, lens: Tensor, seed: int) -> list[Answers]:
    """Pushed in chunks where there is room, with random rests; rows are flushed by their last chunk, or by an empty one after it."""
    generator = torch.Generator().manual_seed(seed)
    wav, lens = with_flush(system, wav, lens)
    rows, chunk = lens.size(0), system.chunk_samples
    state = system.init_state(rows, "cpu", torch.float64)
    position, done, emissions = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.bool), []
    owed = Backlog(rows)
    while not bool(done.all()) or bool(owed.pending.any()):
        awake = (torch.rand(rows, generator=generator) > 0.3) & ~done & ~owed.full
        filled = torch.where(awake, (lens - position).clamp_max(chunk), 0)
        ends = awake & (filled == lens - position)
        final = ends & ((filled < chunk) | (torch.rand(rows, generator=generator) > 0.5))
        given = take(wav, position, filled, chunk), filled.clone(), final.clone()
        emission, state = system.step(*given, state)
        for tensor, garbage in zip(given, (GARBAGE, -7, True), strict=True):
            tensor.fill_(garbage)  # its memory is used again: the state keeps nothing of it
        owed.hear(emission)
        emissions.append(emission)
        position, done = position + filled, done | final
    return collect(*emissions)


@torch.no_grad()
def check_streaming_equals_offline(cls: Any) -> None:
    """If it streams: with its flush, in rows of different age, the tokens are those of ``recognize``, the last one too."""
    system = talkative(cls)
    if not streams(system):
        return
    wav, lens = audio(system)
    whole = collect(system.recognize(wav, lens))
    for seed in range(3):
        for row, answers in enumerate(stream(system, wav, lens, seed)):
            require_same_answers(answers, whole[row], f"streamed row {row} of {int(lens[row])} samples")


@torch.no_grad()
def check_rows_and_padding(cls: Any) -> None:
    """B rows together give what each gives alone, whatever lies in the padding; frames lie within the audio and its flush."""
    system = talkative(cls)
    wav, lens = audio(system)
    padded = torch.nn.functional.pad(wav, (0, 777)).masked_fill(~length_mask(lens, wav.size(1) + 777), GARBAGE)
    for row, answers in enumerate(collect(system.recognize(padded, lens))):
        length = int(lens[row])
        alone = collect(system.recognize(wav[row : row + 1, :length], lens[row : row + 1]))[0]
        require_same_answers(answers, alone, f"row {row} of {length} samples among others")
        require_well_formed(answers, f"row {row}")
        frames = -(-(length + system.flush_samples(length)) // system.period_samples)
        require(all(f < frames for f in answers.frame), f"row {row}: frames {answers.frame} of {frames}")
        require(all(0 <= t < system.tokenizer.vocab_size for t in answers.token_ids), f"row {row}: tokens {answers.token_ids}")


@torch.no_grad()
def check_state_algebra(cls: Any) -> None:
    """If it streams: the state keeps its shapes; rows of different age share a batch; a reset row leaves the others bit-equal."""
    system = talkative(cls)
    if not streams(system):
        return
    chunk = system.chunk_samples
    wav = audio(system)[0][:1, : 2 * chunk]

    def push(number: int, state: Any) -> tuple[Emission, Any]:
        rows = batch_size(state)
        piece = wav[:, number * chunk : (number + 1) * chunk].expand(rows, -1)
        return system.step(piece, torch.full((rows,), chunk), torch.full((rows,), False), state)

    require_state_algebra(system.init_state(1, "cpu", torch.float64), push)


def training_batch(system: Any) -> Batch:
    """Three utterances with texts of two or three tokens and alignments that spread them evenly."""
    wav, lens = audio(system)
    rows = [0, 3, 4]
    known = [text for text in texts(system.tokenizer) if text]
    short = [system.tokenizer.decode(system.tokenizer.encode(text)[:size]) for text, size in zip(known[-3:], (3, 2, 3), strict=True)]
    alignments = []
    for text, row in zip(short, rows, strict=True):
        ids = torch.tensor(system.tokenizer.encode(text), dtype=torch.int64)
        ends = (torch.arange(len(ids)) + 1) * int(lens[row]) // (len(ids) + 1)
        alignments.append(Alignment(ids, (ends - 80).clamp(min=0), ends, torch.zeros(len(ids), dtype=torch.float64), system.sample_rate))
    return Batch([f"utterance-{row}" for row in rows], wav[rows], lens[rows], short, alignments)


def seeded_loss(system: Any, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
    """The loss from a fixed seed, torch's generator left alone, and what is logged with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss, logged = system.loss(batch)
    require(loss.dim() == 0 and bool(loss.isfinite()), f"the loss is {loss}: it must be one finite number")
    plain = all(isinstance(v, float) or (isinstance(v, Tensor) and v.dim() == 0 and not v.requires_grad) for v in logged.values())
    require(plain, f"what is logged must be floats or detached scalars: {logged}")
    require(float(logged.get("targets", 0)) >= 1, f"what is logged lacks 'targets', the number that the loss is a mean over: {logged}")
    return loss, logged


def check_gradient_reaches_every_parameter(cls: Any) -> None:
    """The loss is finite and gives every parameter a gradient that is finite and not zero."""
    system = tiny(cls).train()
    seeded_loss(system, training_batch(system))[0].backward()
    require_gradients(system)


@torch.no_grad()
def check_loss_ignores_padding(cls: Any) -> None:
    """The loss of a batch does not depend on what lies in the padding of its audio."""
    system = tiny(cls)
    batch = training_batch(system)
    loss, _ = seeded_loss(system, batch)
    beyond = ~length_mask(batch.wav_lens, batch.wav.size(1) + 999)
    batch.wav = torch.nn.functional.pad(batch.wav, (0, 999)).masked_fill(beyond, GARBAGE)
    require_equal(seeded_loss(system, batch)[0], loss, "the loss with other padding", 1e-9)


@torch.no_grad()
def check_parts_of_a_batch_weigh_as_one(cls: Any) -> None:
    """The losses of two parts of a batch, each times its ``targets``, are together the loss of the whole times its own."""
    system = tiny(cls)
    batch = training_batch(system)
    weights, losses = [], []
    for rows in (slice(0, 3), slice(0, 1), slice(1, 3)):
        alignments = batch.alignments[rows] if batch.alignments else None
        part = Batch(batch.ids[rows], batch.wav[rows], batch.wav_lens[rows], batch.texts[rows], alignments)
        loss, logged = seeded_loss(system, part)
        weights.append(float(logged["targets"]))
        losses.append(loss.double() * weights[-1])
    require(weights[0] == weights[1] + weights[2], f"targets: {weights[0]} of a batch, {weights[1]} and {weights[2]} of its parts")
    require_equal((losses[1] + losses[2]) / weights[0], losses[0] / weights[0], "the loss of two parts as training weighs them", 1e-5)


def check_token_span(cls: Any) -> None:
    """A token's span is in samples, int64, not empty, and moves on with the frame; ``times_known``, where there is one, is a bool."""
    system = tiny(cls)
    require(
        isinstance(getattr(system, "times_known", True), bool), f"times_known is {getattr(system, 'times_known', True)!r}: True or False"
    )
    frame = torch.arange(6).view(2, 3)
    start, end = system.token_span(torch.zeros_like(frame), frame)
    require(
        start.shape == frame.shape == end.shape and start.dtype == end.dtype == torch.int64, "token_span: (start, end) like frame, int64"
    )
    require(bool((start >= 0).all() and (start < end).all()), f"token_span: {start.tolist()} to {end.tolist()}")
    require(bool((start.flatten().diff() >= 0).all()), f"token_span goes back: {start.tolist()}")


CHECKS = [
    check_streaming_equals_offline,
    check_rows_and_padding,
    check_state_algebra,
    check_gradient_reaches_every_parameter,
    check_loss_ignores_padding,
    check_parts_of_a_batch_weigh_as_one,
    check_token_span,
]
