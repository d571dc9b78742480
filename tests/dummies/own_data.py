"""What users bring: recordings, tables, texts."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
TEXT = {"train": "THE CAT SAT DOWN", "dev": "A DOG IS NOT A CAT", "test": "DON'T ASK ME WHY"}


def write_audio(folder: Path, names: list[str], seconds: float = 1.0, suffix: str = ".wav") -> None:
    """A file of noise for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).uniform(-0.1, 0.1, round(seconds * RATE))
        soundfile.write(folder / f"{name}{suffix}", noise, RATE)


def table(path: Path, rows: list[tuple[object, ...]]) -> Path:
    """Rows of cells with tabs between them."""
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
    return path


def write_text(folder: Path) -> Path:
    """Three sentences for each split, which its voices say."""
    folder.mkdir(parents=True)
    for split, sentence in TEXT.items():
        (folder / f"{split}.txt").write_text(f"{sentence}\n{sentence} AT ALL\nNO\n")
    return folder
