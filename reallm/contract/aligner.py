"""The contract of aligners: when each token was spoken.

The example's first utterance has the id ``utt`` and the text ``the lazy dog``, so that an aligner that reads its times
from a file can have them there in ``tiny()``.
"""

from typing import Any

import torch
from torch import Tensor

from reallm.contract.component import tiny
from reallm.contract.requirement import require, require_equal
from reallm.protocols import AlignmentFailure
from reallm.registry import catalogue
from reallm.types import Alignment, Batch

TEXTS = ("the lazy dog", "fox", "")


def example(cls: Any) -> tuple[Batch, list[Tensor], Any]:
    """A batch of noise, its tokens, and an untrained teacher that has the scores which the aligner names, or CTC's."""
    wanted = getattr(cls, "scores", "log_probs")
    found = [system for system in catalogue("system").values() if hasattr(system, wanted)]
    require(found, f"no system has the method {wanted}, which {cls.__qualname__}.scores names")
    teacher: Any = tiny(found[0])
    rate = teacher.sample_rate
    lens = torch.tensor([2 * rate, rate, rate // 2])
    wav = 0.1 * torch.randn(3, int(lens.max()), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(["utt", "short", "empty"], wav, lens, list(TEXTS))
    return batch, [torch.tensor(teacher.tokenizer.encode(text), dtype=torch.int64) for text in TEXTS], teacher


def check_alignments_are_well_formed(cls: Any) -> None:
    """The tokens that were asked for, in order, inside the audio, with scores that are log-probabilities."""
    batch, token_ids, teacher = example(cls)
    results = tiny(cls).align(batch, token_ids, teacher)
    require(len(results) == len(batch.ids), f"{len(results)} results for {len(batch.ids)} utterances")
    require(isinstance(results[0], Alignment), f"'{batch.ids[0]}', which says '{TEXTS[0]}', was not aligned: {results[0]}")
    for name, tokens, length, found in zip(batch.ids, token_ids, batch.wav_lens.tolist(), results, strict=True):
        if isinstance(found, AlignmentFailure):
            require(found.reason, f"{name}: a failure without a reason")
            continue
        require_equal(found.token_ids, tokens, f"{name}: token ids")
        start, end = found.start_samples, found.end_samples
        require(start.dtype == end.dtype == torch.int64 and start.shape == end.shape == tokens.shape, f"{name}: times must be (U,) int64")
        require(
            bool((start >= 0).all() and (start <= end).all() and (end <= length).all()), f"{name}: {start} to {end} of {length} samples"
        )
        require(bool((end.diff() >= 0).all() and (start.diff() >= 0).all()), f"{name}: tokens out of order: {start} to {end}")
        scores = found.scores
        require(scores.dtype == torch.float64 and scores.shape == tokens.shape, f"{name}: scores must be (U,) float64")
        require(bool((scores <= 0).all()) and found.score <= 0, f"{name}: scores above 0: {scores}, {found.score}")
        require(found.sample_rate == teacher.sample_rate, f"{name}: sample rate {found.sample_rate}, the teacher's {teacher.sample_rate}")


def check_failures_are_values(cls: Any) -> None:
    """An utterance without tokens is an AlignmentFailure with a reason, not an exception, and does not disturb the others."""
    batch, token_ids, teacher = example(cls)
    result = tiny(cls).align(batch, token_ids, teacher)[2]
    require(isinstance(result, AlignmentFailure) and result.reason, f"no tokens, aligned as {result}")


def check_rows_do_not_mix(cls: Any) -> None:
    """B utterances together give what each gives alone."""
    batch, token_ids, teacher = example(cls)
    aligner = tiny(cls)
    for row, together in enumerate(aligner.align(batch, token_ids, teacher)):
        one, length = slice(row, row + 1), int(batch.wav_lens[row])
        alone_batch = Batch(batch.ids[one], batch.wav[one, :length], batch.wav_lens[one], batch.texts[one])
        alone = aligner.align(alone_batch, token_ids[one], teacher)[0]
        require(type(alone) is type(together), f"{batch.ids[row]}: {together} among others, alone {alone}")
        if isinstance(together, Alignment) and isinstance(alone, Alignment):
            require_equal(together.start_samples, alone.start_samples, f"{batch.ids[row]}: starts")
            require_equal(together.end_samples, alone.end_samples, f"{batch.ids[row]}: ends")
            require_equal(together.scores, alone.scores, f"{batch.ids[row]}: scores", 1e-4)


CHECKS = [check_alignments_are_well_formed, check_failures_are_values, check_rows_do_not_mix]
