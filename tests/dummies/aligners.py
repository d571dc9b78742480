"""A teacher that hears levels: each token is a stretch of constant amplitude, blanks are silence. And strings to align."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from torch import Tensor, nn

from reallm.data.alignments import with_words
from reallm.data.cuts import write_cuts
from reallm.protocols import TextState, Tokenizer
from reallm.types import Batch, Word

RATE = 8000
PERIOD = 200  # samples of one encoder frame
LEVEL = 1 / 64


class LevelTeacher(nn.Module):
    """CTC scores from loudness: token i is the level (i + 1) / 64, silence is blank. Hears two frames more than there are."""

    sample_rate = RATE
    period_samples = PERIOD

    def __init__(self, tokenizer: Tokenizer, sharpness: float = 8.0) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.sharpness = nn.Parameter(torch.tensor([sharpness]))

    @torch.inference_mode()
    def log_probs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, N, V), lens (B,)."""
        frames = -(-batch.wav_lens // PERIOD) + 2
        padded = nn.functional.pad(batch.wav, (0, int(frames.max()) * PERIOD - batch.wav.size(1)))
        level = padded.unflatten(1, (-1, PERIOD)).mean(2).div(LEVEL).round().long() - 1
        blank = self.tokenizer.vocab_size
        labels = torch.where(level < 0, blank, level.clamp(max=blank))
        scores = nn.functional.one_hot(labels, blank + 1) * self.sharpness
        return scores.log_softmax(-1), frames


def write_strings(folder: Path, tokenizer: Tokenizer, texts: list[str], late: float = 0.0) -> Path:
    """A manifest of recordings that spell ``texts``, with their true words, ``late`` seconds after the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = []
    for number, text in enumerate(texts):
        random = np.random.default_rng(number)
        audio = [np.zeros(PERIOD * int(random.integers(2, 5)))]
        words: list[Word] = []
        begin: float | None = None
        end = 0.0
        for token in [*tokenizer.encode(text), None]:
            piece = " " if token is None else tokenizer.decode_step(token, TextState(started=True))[0]
            position = sum(map(len, audio)) / RATE
            if piece == " ":
                if begin is not None:
                    words.append(Word(text.split()[len(words)], begin + late, end + late))
                begin = None
            elif begin is None:
                begin = position
            if token is not None:
                audio.append(np.full(PERIOD * int(random.integers(1, 4)), (token + 1) * LEVEL))
                end = sum(map(len, audio)) / RATE
                audio.append(np.zeros(PERIOD))
        audio.append(np.zeros(PERIOD * int(random.integers(4, 9)) + 37))
        path = folder / f"{number:04d}.wav"
        soundfile.write(path, np.concatenate(audio), RATE, subtype="FLOAT")
        recording = Recording.from_file(path)
        supervision = SupervisionSegment(recording.id, recording.id, 0, recording.duration, text=text, speaker="ada")
        cut = MonoCut(recording.id, 0, recording.duration, 0, [supervision], recording=recording)
        cuts.append(with_words(cut, words) if words else cut)
    manifest = folder / "cuts.jsonl.gz"
    write_cuts(cuts, manifest)
    return manifest
