"""The digits corpus: manifests of connected digits for training, development and test.

Recording indices 0–4 are test, 5–7 development, the rest training, never mixed. Test and development strings are always
the same; training string ``index`` of epoch ``epoch`` is a function of (seed, epoch, index).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import MixedCut

from reallm.data.corpora import fsdd
from reallm.data.corpora.fsdd import DigitRecording
from reallm.data.corpora.strings import StringRecipe, compose_string, pool_of, with_noise
from reallm.data.cuts import write_cuts
from reallm.data.download import DownloadError, Progress
from reallm.data.files import atomic_write
from reallm.data.noise import noise_recording
from reallm.data.record import read_record
from reallm.data.sounds import sounds_recording
from reallm.errors import InputError, nearest

SPLITS = ("test", "dev", "train")
FIXED_SEED = 569  # of test and dev
NOISY_DB = (0.0, 10.0)


@dataclass(frozen=True)
class DigitsOptions:
    """What decides the manifests, beside the recordings."""

    seed: int = 1
    train_strings: int = 8000  # an epoch
    epochs: int = 2
    test_strings: int = 1000
    dev_strings: int = 200
    held_out_speaker: str | None = None
    speeds: tuple[float, ...] = (1.0,)
    synthetic_voices: int = 0  # mixed into training, where the recordings are real
    synthetic_share: float = 0.4  # of training strings that they speak
    sounds_share: float = 0.2  # of training strings in which something else is heard, from which nothing is to be recognized
    recipe: StringRecipe = field(default_factory=StringRecipe)


def split_of(index: int) -> str:
    """The split of a recording index."""
    return "test" if index < 5 else "dev" if index < 8 else "train"


def split_recordings(recordings: Sequence[DigitRecording], held_out_speaker: str | None = None) -> dict[str, list[DigitRecording]]:
    """Recordings by split. A held-out speaker is the only one in test, and in nothing else."""
    speakers = sorted({d.speaker for d in recordings})
    if held_out_speaker is not None and held_out_speaker not in speakers:
        raise InputError(f"unknown speaker '{held_out_speaker}'{nearest(held_out_speaker, speakers)}: one of {', '.join(speakers)}")
    splits: dict[str, list[DigitRecording]] = {split: [] for split in SPLITS}
    for recording in recordings:
        split = split_of(recording.index)
        if held_out_speaker is None or (recording.speaker == held_out_speaker) == (split == "test"):
            splits[split].append(recording)
    for split, found in splits.items():
        if not found:
            raise InputError(f"no {split} recordings: the corpus needs indices 0–4 (test), 5–7 (dev) and more (train) of each digit")
    return splits


def training_string(
    epoch: int, index: int, pools: tuple[Any, Any | None], noise: Any, options: DigitsOptions, sounds: Any = None
) -> MixedCut:
    """Training string ``index`` of ``epoch``. ``pools``: real recordings, and synthetic ones or None; ``sounds``: a recording, or None."""
    rng = np.random.default_rng([options.seed, epoch, index])
    real, synthetic = pools
    pool = synthetic if synthetic is not None and rng.random() < options.synthetic_share else real
    heard = sounds if sounds is not None and rng.random() < options.sounds_share else None
    cut = compose_string(f"train-{epoch:03d}-{index:05d}", pool, noise, options.recipe, rng, options.speeds, heard)
    cut.tracks[0].cut.custom["epoch"] = epoch
    return cut


def write_manifests(
    recordings: Sequence[DigitRecording],
    out: Path,
    options: DigitsOptions,
    synthetic: Sequence[DigitRecording] = (),
    tick: Callable[[int], None] = lambda strings: None,
) -> dict[str, dict[str, float]]:
    """Write test, test_noisy, dev and train manifests to ``out``. Returns strings, hours and speakers by manifest."""
    splits = split_recordings(recordings, options.held_out_speaker)
    rate = recordings[0].recording.sampling_rate
    noise, sounds = noise_recording(out, rate), sounds_recording(out, rate) if options.sounds_share else None
    done: dict[str, dict[str, float]] = {}

    def write(name: str, cuts: Any) -> None:
        seconds = 0.0
        speakers = set()

        def counted() -> Any:
            nonlocal seconds
            for cut in cuts:
                seconds += cut.duration
                speakers.add(cut.supervisions[0].speaker)
                tick(1)
                yield cut

        count = write_cuts(counted(), out / f"{name}.jsonl.gz")
        done[name] = {"strings": count, "hours": round(seconds / 3600, 3), "speakers": len(speakers)}

    def fixed(split: str, count: int, number: int) -> list[MixedCut]:
        pool = pool_of(splits[split])
        return [
            compose_string(f"{split}-{i:05d}", pool, noise, options.recipe, np.random.default_rng([FIXED_SEED, number, i]))
            for i in range(count)
        ]

    test = fixed("test", options.test_strings, 0)
    write("test", test)
    write("dev", fixed("dev", options.dev_strings, 1))

    def noisy() -> Any:
        for i, cut in enumerate(test):
            rng = np.random.default_rng([FIXED_SEED, 2, i])
            yield with_noise(cut, cut.id.replace("test", "test_noisy"), noise, float(rng.uniform(*NOISY_DB)), rng)

    write("test_noisy", noisy())
    pools = (pool_of(splits["train"]), pool_of(synthetic) if synthetic else None)
    write(
        "train",
        (training_string(e, i, pools, noise, options, sounds) for e in range(options.epochs) for i in range(options.train_strings)),
    )
    return done


def describe(recordings: Sequence[DigitRecording], real: bool, source: Path, options: DigitsOptions) -> dict[str, Any]:
    """What results cite about the corpus (``corpus.json``), before the manifests' sizes are known."""
    voices = options.synthetic_voices if real else 0  # of speech that is synthesized, those of the test would be among them
    mixed = f"{voices} espeak-ng voices, which speak {100 * options.synthetic_share:g} % of the training strings"
    return {
        "corpus": "fsdd" if real else "espeak-ng digits",
        "real": real,
        "source": str(source),
        "licence": "CC BY-SA 4.0 (github.com/Jakobovski/free-spoken-digit-dataset)" if real else "synthesized with espeak-ng",
        "recordings": len(recordings),
        "speakers": sorted({d.speaker for d in recordings}),
        "sample_rate": recordings[0].recording.sampling_rate,
        **({"mixed_into_training": mixed} if voices else {}),
        "options": json.loads(json.dumps(asdict(options))),
    }


def _synthesized(folder: Path, voices: int, repeats: int, rate: int, otherwise: str) -> Path:
    """Recordings of single digits. Raises InputError, where espeak-ng cannot make them, that says what else can be done."""
    from reallm.data import synthesis

    try:
        return synthesis.synthesize_digits(folder, voices, repeats, rate)
    except InputError as error:
        raise InputError(f"{error}, or {otherwise}") from error


def _find(data: Path | None, out: Path, announce: Callable[[str], None], fetched: Progress) -> Path:
    """The folder of recordings: ``data``'s, or a downloaded or synthesized one in ``out``."""
    if data is not None:
        folder = fsdd.recordings_folder(data) if data.is_dir() else None
        if folder is None:
            what = "has no recordings named DIGIT_SPEAKER_INDEX.wav" if data.is_dir() else "is missing"
            raise InputError(f"data folder {data} {what}: give --data the Free Spoken Digit Dataset, or leave it away to download it")
        return folder
    folder = fsdd.recordings_folder(out / "fsdd")
    if folder is None and not (out / "espeak").is_dir():
        announce(f"downloading the Free Spoken Digit Dataset from {fsdd.ARCHIVE}")
        try:
            folder = fsdd.download(out / "fsdd", fetched)
        except DownloadError as error:
            announce(f"the dataset cannot be had: {error}")
    if folder is None:
        announce(f"NOT REAL SPEECH: digits are synthesized with espeak-ng (remove {out / 'espeak'} to try the download again)")
        folder = _synthesized(out / "espeak", 6, 24, 8000, "give real recordings with --data")
    return folder


def prepare(
    data: Path | None,
    out: Path,
    options: DigitsOptions,
    announce: Callable[[str], None] = print,
    tick: Callable[[int], None] = lambda strings: None,
    fetched: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Make the digits manifests in ``out``. Returns what ``corpus.json`` holds.

    Recordings come from ``data``; None: from the dataset's repository on GitHub, else from espeak-ng. Nothing is done
    where ``out`` already holds these very manifests. ``tick`` is told the strings that were just made, ``fetched`` the bytes of a
    download that have come, and of how many where that is known.

    Raises InputError for a folder without recordings, for broken ones (over 1 %), for an unknown speaker, and without espeak-ng
    where that is to speak.
    """
    from reallm.data import synthesis

    out = out.resolve()  # manifests hold absolute paths: they are read from anywhere
    folder = _find(data.resolve() if data is not None else None, out, announce, fetched)
    real = not (folder / synthesis.MARKER).is_file()
    found = fsdd.scan(folder)
    for name, why in found.skipped.items():
        announce(f"skipped {folder / name}: {why}")
    record = describe(found.recordings, real, folder, options)
    record["skipped"] = found.skipped
    synthetic: list[DigitRecording] = []
    if "mixed_into_training" in record:
        announce(f"mixed into training: {record['mixed_into_training']}")
        count, otherwise = options.synthetic_voices, "mix no synthetic voices into training: --synthetic-voices 0"
        synthetic = fsdd.scan(_synthesized(out / f"voices-{count}", count, 2, found.sample_rate, otherwise)).recordings
    marker = out / "corpus.json"
    if old := read_record(out):
        if "options" not in old:
            raise InputError(f"{out} already holds the corpus '{old['corpus']}', which is not digits: choose another --out")
        if {k: v for k, v in old.items() if k != "splits"} == record and all((out / f"{n}.jsonl.gz").is_file() for n in old["splits"]):
            announce(f"{out} already holds these manifests")
            return old
        marker.unlink()
    record["splits"] = write_manifests(found.recordings, out, options, synthetic, tick)
    with atomic_write(marker) as file:
        json.dump(record, file, indent=1)
    return record
