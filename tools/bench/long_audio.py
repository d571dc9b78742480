"""Hours of audio through one stream: what memory it takes, and whether late words are as right as early ones.

    reallm data digits --data DIR --out work --train-strings 1 --epochs 1
    python tools/bench/long_audio.py work/test.jsonl.gz --out work/long.flac --hours 10

Joins the manifest's utterances, over and over, with pauses of faint noise between them, and streams the file through the recognizer.
Prints a line each half hour of audio: real-time factor, milliseconds of a push and of its result, and resident memory (Linux) now and at
its highest; at the end a table of them with the word errors of each half hour, which ``--json`` writes too. An utterance's hypothesis is
the words that start between the middles of the pauses around it.
"""

import argparse
import bisect
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from _measure import Report, percentile

from reallm.bundle import load_shared, published
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.compiled.system import with_compiled_layers
from reallm.streaming.recognizer import Recognizer
from reallm.types import Seconds, Word

PAUSE, NOISE = 1.0, 1e-4  # seconds, and the deviation of the noise in them

Utterances = list[tuple[Seconds, list[str]]]  # where each starts in the long file, and its words
Row = dict[str, Any]  # of the report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--out", type=Path, required=True, help="the long file, .flac or .wav, which is left there")
    parser.add_argument("--hours", type=float, default=10.0, help="how long it is")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--piece-ms", type=float, default=1000.0, help="audio is pushed in pieces of so many milliseconds")
    parser.add_argument("--row-minutes", type=float, default=30.0, help="minutes of audio that a row is about")
    parser.add_argument("--compiled", action="store_true", help="with compiled layers, as reallm transcribe --compiled")
    parser.add_argument("--json", type=Path, help="results are written to this file too")
    parser.set_defaults(device="cpu")
    arguments = parser.parse_args()
    interval = 60 * arguments.row_minutes
    try:
        report = Report("long_audio", arguments)
        utterances = join(arguments.manifest, arguments.out, 3600 * arguments.hours)
        system: Any = load_shared(arguments.model or published())
        system = with_compiled_layers(system) if arguments.compiled else system
        rows, words = stream(arguments.out, system, arguments.piece_ms / 1000, interval)
        for row, count in zip(rows, errors(utterances, words, interval, len(rows)), strict=True):
            report.row(**row, words=count.words, errors=count.errors, WER_percent=count.wer or 0.0)
    except InputError as error:
        sys.exit(f"error: {error}")
    report.note(utterances=len(utterances), words_found=len(words))
    report.finish()


def join(manifest: Path, out: Path, length: Seconds) -> Utterances:
    """Write the long file, the utterance that passes ``length`` being its last."""
    cuts = list(read_cuts(manifest))
    rate = cuts[0].sampling_rate
    random = np.random.default_rng(0)
    utterances: Utterances = []
    written = 0
    with atomic_write(out, "wb") as raw, soundfile.SoundFile(raw, "w", rate, 1, "PCM_16", format=out.suffix[1:]) as file:
        while written < length * rate:
            cut = cuts[len(utterances) % len(cuts)]
            utterances.append((written / rate, text_of(cut).split()))
            for samples in (load_audio(cut, rate), random.normal(0, NOISE, round(PAUSE * rate))):
                file.write(samples)
                written += len(samples)
    print(f"{out}: {written / rate / 3600:.2f} h, {len(utterances)} utterances", flush=True)
    return utterances


def stream(file: Path, system: Any, piece: Seconds, interval: Seconds) -> tuple[list[Row], list[Word]]:
    """What each ``interval`` seconds of audio cost, printed as they come, and the words of all."""
    heard = Recognizer(system).stream()
    rows: list[Row] = []
    pushes: list[Seconds] = []
    before, begun = 0.0, time.process_time()
    with soundfile.SoundFile(file) as audio:
        size = max(1, round(piece * audio.samplerate))
        while len(samples := audio.read(size, dtype="float32")):
            pushed = time.perf_counter()
            heard.accept_waveform(samples, audio.samplerate)
            heard.result()
            pushes.append(time.perf_counter() - pushed)
            if heard.accepted >= (len(rows) + 1) * interval or audio.tell() == len(audio):
                row: Row = {
                    "hours": heard.accepted / 3600,
                    "rtf": (time.process_time() - begun) / (heard.accepted - before),
                    "push_ms_median": 1000 * percentile(pushes, 50),
                    "push_ms_p99": 1000 * percentile(pushes, 99),
                    "memory_MB": memory("VmRSS"),
                    "highest_MB": memory("VmHWM"),
                }
                print("  ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in row.items()), flush=True)
                rows.append(row)
                pushes, before, begun = [], heard.accepted, time.process_time()
    return rows, heard.finish().words


def memory(field: str) -> float:
    """MB of this process, as the kernel counts them; NaN where it does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), float("nan"))


def errors(utterances: Utterances, words: list[Word], interval: Seconds, rows: int) -> list[ErrorCounts]:
    """The word errors of each ``interval`` seconds, by where an utterance starts."""
    counts = [ErrorCounts() for _ in range(rows)]
    starts = [word.start for word in words]
    # In the middle of the pause before it: where a word starts is an estimate.
    begins = [bisect.bisect_left(starts, start - PAUSE / 2) for start, _ in utterances]
    for (start, ref), begin, end in zip(utterances, begins, [*begins[1:], len(words)], strict=True):
        counts[min(int(start // interval), rows - 1)].add(align_words(ref, [word.word for word in words[begin:end]]))
    return counts


main()
