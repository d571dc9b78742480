"""Words as tokens: for closed vocabularies such as digits, where one token per word makes the shortest sequence."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from reallm.errors import InputError, nearest
from reallm.protocols import TextState
from reallm.registry import register
from reallm.tokenizers.character import fingerprint, process_folder, read_symbols, write_symbols


@register("tokenizer", "word")
class WordTokenizer:
    """One token per word of a closed vocabulary.

    Args:
        path: a JSON file, the list of the words in the order of their ids.

    Raises InputError for a file that is missing or does not hold a list of distinct words.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.words = read_symbols(self.path)
        wrong = [w for w in self.words if w.split() != [w]]
        if wrong:
            raise InputError(f"{path}: {wrong[0]!r} is not one word: correct the file or train it again")
        self.vocab_size = len(self.words)
        self.special_ids: dict[str, int] = {}
        self.fingerprint = fingerprint("word", self.words)
        self._ids = {word: token_id for token_id, word in enumerate(self.words)}

    @classmethod
    def train(cls, texts: Iterable[str], path: Path) -> "WordTokenizer":
        """Write all words of ``texts`` to ``path``, sorted. Raises InputError when there are none."""
        words = sorted({word for text in texts for word in text.split()})
        if not words:
            raise InputError(f"no text to make {path} from: the transcripts are empty")
        write_symbols(words, path)
        return cls(path)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "WordTokenizer":
        """Nine words, stored in ``folder`` (default: one that goes with the process)."""
        return cls.train(["the quick brown fox jumps over a lazy dog"], (folder or process_folder()) / "words.json")

    def encode(self, text: str) -> list[int]:
        """Raises InputError that names the words which are not in the file."""
        unknown = sorted({word for word in text.split() if word not in self._ids})
        if unknown:
            named = ", ".join(f"'{word}'{nearest(word, self._ids)}" for word in unknown)
            raise InputError(f"{named} in {text!r} not known to {self.path}: clean the transcript or train the tokenizer on it")
        return [self._ids[word] for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The words with single spaces between them."""
        return " ".join(self.words[i] for i in token_ids)

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        """The word, after a space unless it is the first."""
        return (" " if state.started else "") + self.words[token_id], TextState(started=True)
