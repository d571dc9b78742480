"""Hours of audio through one stream: what memory it takes, and whether late words are as right as early ones.

    reallm data digits --data DIR --out work --train-strings 1 --epochs 1
    python tools/bench/long_audio.py work/test.jsonl.gz --out work/long.flac --hours 10

Joins the manifest's utterances, over and over, with pauses of faint noise between them, and streams the file through the recognizer.
Prints a row each half hour of audio: real-time factor, and resident memory (Linux) now and at its highest; at the end
the word errors of each half hour. An utterance's hypothesis is the words that start between the middles of the pauses around it.
"""

import argparse
import bisect
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from reallm.bundle import load_shared, published
from reallm.data.cuts import load_audio, read_cuts, text_of
from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.metrics.word_errors import ErrorCounts, align_words
from reallm.streaming.recognizer import Recognizer
from reallm.types import Seconds, Word

PAUSE, NOISE = 1.0, 1e-4  # seconds, and the deviation of the noise in them

Utterances = list[tuple[Seconds, list[str]]]  # where each starts in the long file, and its words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="lhotse cuts with their texts")
    parser.add_argument("--out", type=Path, required=True, help="the long file, .flac or .wav, which is left there")
    parser.add_argument("--hours", type=float, default=10.0, help="how long it is")
    parser.add_argument("--model", type=Path, help="a bundle, or an experiment with one; default: the digits")
    parser.add_argument("--piece-ms", type=float, default=1000.0, help="audio is pushed in pieces of so many milliseconds")
    parser.add_argument("--row-minutes", type=float, default=30.0, help="minutes of audio that a row is about")
    arguments = parser.parse_args()
    try:
        utterances = join(arguments.manifest, arguments.out, 3600 * arguments.hours)
        words = stream(arguments.out, arguments.model, arguments.piece_ms / 1000, 60 * arguments.row_minutes)
    except InputError as error:
        sys.exit(f"error: {error}")
    report(utterances, words, 60 * arguments.row_minutes)


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


def stream(file: Path, model: Path | None, piece: Seconds, interval: Seconds) -> list[Word]:
    """Its words. Prints a row each ``interval`` seconds of audio."""
    recognizer = Recognizer(load_shared(model or published()))
    heard = recognizer.stream()
    print("  hours     RTF  memory MB  highest MB")
    before, begun = 0.0, time.process_time()
    with soundfile.SoundFile(file) as audio:
        size = max(1, round(piece * audio.samplerate))
        while len(samples := audio.read(size, dtype="float32")):
            heard.accept_waveform(samples, audio.samplerate)
            recognizer.decode()
            if heard.accepted - before >= interval or audio.tell() == len(audio):
                now = time.process_time()
                rtf = (now - begun) / (heard.accepted - before)
                print(f"{heard.accepted / 3600:7.2f}  {rtf:6.4f}  {memory('VmRSS'):9.1f}  {memory('VmHWM'):10.1f}", flush=True)
                before, begun = heard.accepted, now
    return heard.finish().words


def memory(field: str) -> float:
    """MB of this process, as the kernel counts them; NaN where it does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), float("nan"))


def report(utterances: Utterances, words: list[Word], interval: Seconds) -> None:
    """Print the word errors of each ``interval`` seconds, by where an utterance starts."""
    counts: dict[int, ErrorCounts] = {}
    starts = [word.start for word in words]
    # In the middle of the pause before it: where a word starts is an estimate.
    begins = [bisect.bisect_left(starts, start - PAUSE / 2) for start, _ in utterances]
    for (start, ref), begin, end in zip(utterances, begins, [*begins[1:], len(words)], strict=True):
        hyp = words[begin:end]
        counts.setdefault(int(start // interval), ErrorCounts()).add(align_words(ref, [word.word for word in hyp]))
    print("  from h  words  errors   WER %")
    for number, count in counts.items():
        print(f"{number * interval / 3600:8.2f}  {count.words:5d}  {count.errors:6d}  {count.wer or 0:6.2f}")


main()
