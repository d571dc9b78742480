"""Aligns a manifest: in batches, in shards that survive a kill and that several processes share, with a report."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reallm import fingerprints
from reallm.aligners.report import Measurements, make_report
from reallm.aligners.retokenize import retokenize, token_pieces, word_times
from reallm.data.files import atomic_write
from reallm.device_memory import BatchMemory
from reallm.errors import InputError
from reallm.jobs import ALONE, Workers, in_shards
from reallm.memory import ran_out
from reallm.protocols import Aligner, AlignmentFailure, Tokenizer
from reallm.registry import catalogue, spec_of

SHARD = 250  # cuts that a process aligns at a time, and that are lost at most when it is killed
BATCH_SECONDS = 300.0  # audio of one batch at most, padding included
MOST_FAILED = 0.01


def align_cuts(
    cuts: Sequence[Any],
    teacher: Any,
    aligner: Aligner,
    meta: dict[str, Any],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda count: None,
    tokenizer: Tokenizer | None = None,
    batch_seconds: float = BATCH_SECONDS,
    memory: BatchMemory | None = None,
) -> tuple[list[Any], Measurements]:
    """Align lhotse cuts of one supervision each.

    Args:
        teacher: the system whose tokenizer, sample rate and (for ``ctc``) scores are used; on ``device``.
        meta: stored beside each alignment (:func:`describe_run`).
        progress: is told how many cuts were just done.
        tokenizer: the times are carried over to its tokens (retokenize.py); None = the teacher's are kept.
        batch_seconds: audio of one batch at most, padding included. The result depends on it by the rounding of numbers alone.
        memory: what batches took so far, and what is advised where one does not fit; None = these are the first.

    Returns:
        The cuts with token alignments, in their order and without those that failed; what was measured.

    Raises InputError, which names the cut, for transcripts that a tokenizer cannot encode or gives back as another text, and for
    audio that cannot be read; and with a size that may fit, for a batch that the memory has no room for.
    """
    from reallm.data.alignments import with_token_alignment, words
    from reallm.data.dataset import load_batch, without_audio

    tokens = encode_texts(cuts, teacher.tokenizer)
    done: dict[int, Any] = {}
    measured: dict[int, Measurements] = {}
    memory = memory or BatchMemory(partial(smaller_batches, batch_seconds))
    for rows in batches_by_duration([cut.duration for cut in cuts], batch_seconds):
        chosen = [cuts[row] for row in rows]
        reads_audio = getattr(aligner, "reads_audio", True)
        batch = load_batch(chosen, teacher.sample_rate) if reads_audio else without_audio(chosen, teacher.sample_rate)
        memory.begin(batch, teacher.sample_rate, device)
        try:
            found = aligner.align(batch.to(device) if reads_audio else batch, [tokens[row] for row in rows], teacher)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            raise memory.refusal() from error
        memory.end()
        for row, alignment, samples in zip(rows, found, batch.wav_lens.tolist(), strict=True):
            cut, measured[row] = cuts[row], Measurements()
            if not samples:
                alignment = AlignmentFailure("no audio")
            if isinstance(alignment, AlignmentFailure):
                measured[row].failures.append((cut.id, alignment.reason))
                continue
            pieces = token_pieces(teacher.tokenizer, alignment.token_ids.tolist())
            try:
                stored = alignment if tokenizer is None else retokenize(alignment, pieces, tokenizer)
            except InputError as error:
                raise InputError(f"cut '{cut.id}': {error}") from None
            done[row] = with_token_alignment(cut, stored, token_pieces(tokenizer or teacher.tokenizer, stored.token_ids.tolist()), meta)
            measured[row].frame_scores.append(alignment.score / -(-samples // teacher.period_samples))
            if truth := words(cut):
                measured[row].compare_words(cut.id, word_times(alignment, pieces), truth)
        progress(len(rows))
    total = Measurements()
    for row in sorted(measured):
        total.extend(measured[row])
    return [done[row] for row in sorted(done)], total


def smaller_batches(now: float, seconds: float, workers: Workers = ALONE) -> str:
    """How a user makes batches of ``seconds`` in place of ``now``, or gives ``workers`` more memory."""
    way = f"take --batch-seconds {seconds:.1f} (now {now:g})"
    if workers.dask is not None:
        way += f", or workers of --dask {workers.dask} with more memory"
    elif workers.jobs > 1:
        way += f", or fewer --jobs than {workers.jobs}"
    return f"{way}; what is done is kept"


@dataclass(frozen=True)
class ShardAligner:
    """:func:`align_cuts` with all but its cuts, for :func:`reallm.jobs.in_shards`: cuts → cuts and measurements, for JSON."""

    teacher: Any
    aligner: Aligner
    meta: dict[str, Any]
    device: torch.device | str
    tokenizer: Tokenizer | None
    batch_seconds: float
    memory: BatchMemory  # of the worker that this is sent to, from one shard to the next

    def __call__(self, cuts: Sequence[Any], tick: Callable[[int], None]) -> dict[str, Any]:
        """Align one shard."""
        from reallm.data.cuts import to_plain

        aligned, found = align_cuts(
            cuts, self.teacher, self.aligner, self.meta, self.device, tick, self.tokenizer, self.batch_seconds, self.memory
        )
        return {"cuts": [to_plain(cut) for cut in aligned], "measured": asdict(found)}


def align_manifest(
    cuts_path: Path,
    out: Path,
    teacher: Any,
    aligner: Aligner,
    device: torch.device | str = "cpu",
    offsets: dict[str, float] | None = None,
    progress: Callable[[int, int], None] = lambda count, total: None,
    tokenizer: Tokenizer | None = None,
    workers: Workers = ALONE,
    batch_seconds: float = BATCH_SECONDS,
) -> dict[str, Any]:
    """Align a manifest into ``out``, with a report beside it; a run that was killed goes on from its last whole shard.

    Args:
        cuts_path: manifest of lhotse cuts.
        teacher: as for :func:`align_cuts`.
        out: manifest to be written; ``OUT.report.json`` beside it. Done already with the same input: nothing is done.
        offsets: constants of the word times ("begin", "end", in ms) that were fitted on other data.
        progress: is told the number of cuts done and of all cuts.
        tokenizer: whose tokens are stored; None = the teacher's.
        workers: who aligns. The result does not depend on it.
        batch_seconds: as for :func:`align_cuts`; a run that goes on may have another one.

    Raises InputError when more than 1 % of the utterances fail: only the report is written then; before anything is
    done, for a transcript that a tokenizer does not know; as :func:`align_cuts` for a lack of memory; and as
    :func:`reallm.jobs.in_shards`.
    """
    from lhotse.serialization import deserialize_item

    from reallm.data.cuts import read_cuts, write_cuts

    cuts = list(read_cuts(cuts_path))
    meta = describe_run(teacher, aligner, tokenizer)
    key = {**meta, "cuts": fingerprints.of_file(Path(cuts_path)), "offsets": offsets}
    report_path = report_of(out)
    if out.exists() and (report := read_report(report_path)) and {k: report.get(k) for k in key} == key:
        return report
    for each in (teacher.tokenizer, tokenizer):
        if each is not None:
            encode_texts(cuts, each)
    parts = out.parent / f".{out.name}.parts"
    count = 0

    def advance(done: int) -> None:
        nonlocal count
        count += done
        progress(count, len(cuts))

    memory = BatchMemory(partial(smaller_batches, batch_seconds, workers=workers))
    work = ShardAligner(teacher, aligner, meta, device, tokenizer, batch_seconds, memory)
    shards = in_shards(work, cuts, SHARD, parts, key, workers, advance)
    measured = Measurements()
    for shard in shards:
        measured.extend(Measurements(**shard["measured"]))
    report = make_report(measured, key, offsets)
    with atomic_write(report_path) as file:
        json.dump(report, file, indent=2, ensure_ascii=False)
        file.write("\n")
    if report["failed"] > MOST_FAILED * len(cuts):
        shutil.rmtree(parts)
        worst = next(iter(report["reasons"]))
        raise InputError(
            f"{report['failed']} of {len(cuts)} utterances of {cuts_path} could not be aligned (most often: {worst}), more than 1 %: "
            f"they are listed in {report_path}; correct the transcripts, and train the teacher longer or complete the alignments"
        )
    write_cuts((deserialize_item(cut) for shard in shards for cut in shard["cuts"]), out)
    shutil.rmtree(parts)
    return report


def fitting_aligner(teacher: Any) -> type[Any]:
    """The aligner that uses scores which the teacher has. Raises InputError when it has none."""
    for aligner in catalogue("aligner").values():
        if hasattr(teacher, getattr(aligner, "scores", "")):
            return aligner
    raise InputError(
        f"{type(teacher).__name__} has no scores to align with: name a trained `ctc`, `transducer` or `speech_reallm` system, "
        "or align with --ctm"
    )


def encode_texts(cuts: Sequence[Any], tokenizer: Tokenizer) -> list[Tensor]:
    """The token ids of each cut. Raises InputError that names the cut whose text the tokenizer does not know."""
    from reallm.data.cuts import text_of

    found = []
    for cut in cuts:
        try:
            found.append(torch.tensor(tokenizer.encode(text_of(cut)), dtype=torch.int64))
        except InputError as error:
            raise InputError(f"cut '{cut.id}': {error}") from None
    return found


def batches_by_duration(durations: Sequence[float], most: float) -> Iterator[list[int]]:
    """Indices in batches of like durations: longest first, each batch at most ``most`` seconds with its padding (or one cut)."""
    order = sorted(range(len(durations)), key=lambda row: -durations[row])
    batch: list[int] = []
    for row in order:
        if batch and durations[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def describe_run(teacher: Any, aligner: Any, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """What is stored beside each alignment: tokenizer, aligner, backend and version, teacher."""
    backend, version = aligner.backend_version() if hasattr(aligner, "backend_version") else (spec_of(aligner).name, "")
    return {
        "tokenizer": (tokenizer or teacher.tokenizer).fingerprint,
        "aligner": spec_of(aligner).name,
        "backend": backend,
        "version": version,
        "teacher": teacher_id(teacher),
    }


def teacher_id(teacher: Any) -> str:
    """The begin of the sha256 of a system's weights; empty where there are none."""
    weights = teacher.state_dict()
    return fingerprints.of_weights(weights)[:16] if weights else ""


def report_of(out: Path) -> Path:
    """Where the report of the manifest ``out`` lies."""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".report.json")


def read_report(path: Path) -> dict[str, Any] | None:
    """A report, or None where there is none that can be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
