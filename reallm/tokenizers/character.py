"""Characters as tokens: no training, no unknown segmentation, and times that are as fine as the transcript."""

import atexit
import functools
import hashlib
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.protocols import TextState
from reallm.registry import register

SPACE = " "


@register("tokenizer", "character")
class CharacterTokenizer:
    """One token per Unicode code point; the space between words is one of them.

    Args:
        path: a JSON file, the list of the symbols in the order of their ids.

    Runs of white space in a text count as one space, those at its ends as none. Raises InputError for a file that is
    missing or does not hold a list of distinct characters.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.symbols = read_symbols(self.path)
        wrong = [s for s in self.symbols if len(s) != 1 or (s.isspace() and s != SPACE)]
        if wrong:
            raise InputError(f"{path}: {wrong[0]!r} is not a single visible character or the space: correct the file or train it again")
        self.vocab_size = len(self.symbols)
        self.special_ids: dict[str, int] = {}
        self.fingerprint = fingerprint("character", self.symbols)
        self._ids = {symbol: token_id for token_id, symbol in enumerate(self.symbols)}

    @classmethod
    def train(cls, texts: Iterable[str], path: Path) -> "CharacterTokenizer":
        """Write all characters of ``texts`` to ``path``, sorted, the space included. Raises InputError when there is no text."""
        found = {character for text in texts for character in text if not character.isspace()}
        if not found:
            raise InputError(f"no text to make {path} from: the transcripts are empty")
        write_symbols([SPACE, *sorted(found)], path)
        return cls(path)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "CharacterTokenizer":
        """Lower-case letters and the space, stored in ``folder`` (default: one that goes with the process)."""
        return cls.train(["the quick brown fox jumps over the lazy dog"], (folder or process_folder()) / "characters.json")

    def encode(self, text: str) -> list[int]:
        """Raises InputError that names the characters which are not in the file."""
        text = SPACE.join(text.split())
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise InputError(
                f"{describe_characters(unknown)} in {text!r} not known to {self.path}: clean the transcript or train the tokenizer on it"
            )
        return [self._ids[character] for character in text]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The characters joined."""
        return "".join(self.symbols[i] for i in token_ids).strip(SPACE)

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        """The character, unless it is a space before all text."""
        symbol = self.symbols[token_id]
        if symbol == SPACE and not state.started:
            return "", state
        return symbol, TextState(started=True)


def read_symbols(path: Path) -> list[str]:
    """The JSON list of distinct strings in ``path``. Raises InputError for anything else."""
    try:
        symbols = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: make it with `reallm tokenizer --train MANIFEST --out {path}`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable JSON file ({error}): make it with `reallm tokenizer`") from None
    if not isinstance(symbols, list) or not symbols or not all(isinstance(s, str) and s for s in symbols):
        raise InputError(f"{path} is not a JSON list of strings: make it with `reallm tokenizer`")
    if len(set(symbols)) < len(symbols):
        twice = next(s for s in symbols if symbols.count(s) > 1)
        raise InputError(f"{path} lists {twice!r} twice: remove one")
    return symbols


def write_symbols(symbols: Sequence[str], path: Path) -> None:
    """The inverse of :func:`read_symbols`, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path), "w") as file:
        json.dump(list(symbols), file, ensure_ascii=False, indent=0)
        file.write("\n")


def fingerprint(kind: str, symbols: Sequence[str]) -> str:
    """sha256 over the vocabulary in the order of its ids."""
    return hashlib.sha256(json.dumps([kind, *symbols]).encode()).hexdigest()


def describe_characters(characters: Iterable[str]) -> str:
    """Characters with their code points, for a message: 'ä' (U+00E4 LATIN SMALL LETTER A WITH DIAERESIS)."""
    return ", ".join(f"{c!r} (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})" for c in characters)


@functools.cache
def process_folder() -> Path:
    """A temporary folder that is removed when the process ends: where ``tiny()`` keeps its file."""
    folder = tempfile.mkdtemp(prefix="reallm-tiny-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
