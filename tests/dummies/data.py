"""A tiny digits corpus of tones: real files, real manifests, in a tenth of a second."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from reallm.aligners.retokenize import token_pieces
from reallm.data.alignments import with_token_alignment
from reallm.data.corpora.digits import DigitsOptions, prepare
from reallm.data.cuts import text_of
from reallm.types import Alignment

RATE = 8000


def tone(frequency: float, seconds: float, rate: int = RATE, margin: float = 0.03) -> np.ndarray:
    """(S,) a tone with silence of ``margin`` seconds around it."""
    wave = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.pad(wave, round(margin * rate)).astype(np.float32)


def write_recordings(folder: Path, speakers: tuple[str, ...] = ("ada", "bo"), indices: int = 10, seconds: float = 0.10) -> Path:
    """``folder``/recordings/{digit}_{speaker}_{index}.wav: a tone a digit, of another length for each index, from ``seconds`` on."""
    recordings = folder / "recordings"
    recordings.mkdir(parents=True)
    for s, speaker in enumerate(speakers):
        for digit in range(10):
            for index in range(indices):
                wave = tone(200 + 100 * digit + 30 * s, seconds + 0.01 * (index % 4))
                soundfile.write(recordings / f"{digit}_{speaker}_{index}.wav", wave, RATE, subtype="PCM_16")
    return folder


def write_corpus(folder: Path, **options: object) -> Path:
    """A folder with the manifests of a tiny digits corpus (test, test_noisy, dev, train)."""
    sizes = {"train_strings": 12, "epochs": 2, "test_strings": 6, "dev_strings": 4}
    defaults: dict[str, object] = {"seed": 3, **sizes, "synthetic_voices": 0, "sounds_share": 0.0}
    data = write_recordings(folder / "fsdd")
    prepare(data, folder / "manifests", DigitsOptions(**{**defaults, **options}), announce=lambda line: None)  # type: ignore[arg-type]
    return folder / "manifests"


def write_flac_of_unknown_length(path: Path, samples: np.ndarray) -> None:
    """A FLAC file (8 kHz) as it is written into a pipe: the 36 bits of its STREAMINFO that say how long it is are zero."""
    soundfile.write(path, samples, RATE)
    content = bytearray(path.read_bytes())
    assert content[:4] == b"fLaC"
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)


def silent_cut(folder: Path, name: str, seconds: float, text: str | None = None) -> MonoCut:
    """A recording of silence, with a supervision where there is a text."""
    soundfile.write(folder / f"{name}.wav", np.zeros(int(seconds * RATE)), RATE)
    recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
    said = [] if text is None else [SupervisionSegment("s", name, 0, recording.duration, text=text, speaker="anna")]
    return MonoCut(name, 0, recording.duration, 0, said, recording=recording)


def aligned_evenly(cuts: Iterable[Cut], tokenizer: Any) -> list[Cut]:
    """The cuts with the tokens of their texts spread evenly over each."""
    aligned = []
    for cut in cuts:
        ids = tokenizer.encode(text_of(cut))
        edges = torch.linspace(0, cut.num_samples, len(ids) + 1).long()
        alignment = Alignment(torch.tensor(ids), edges[:-1], edges[1:], torch.zeros(len(ids)).double(), cut.sampling_rate)
        meta = {"tokenizer": tokenizer.fingerprint, "backend": "even", "version": "1"}
        aligned.append(with_token_alignment(cut, alignment, token_pieces(tokenizer, ids), meta))
    return aligned
