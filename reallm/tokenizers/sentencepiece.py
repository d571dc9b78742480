"""Subword pieces (Kudo and Richardson, EMNLP 2018, arXiv 1808.06226), decoded one token at a time.

A piece carries its leading space, which must not be shown before the first word; a byte piece carries a part of a
character, which must not be shown before the character is whole.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

from reallm.data.files import atomic_write
from reallm.errors import InputError
from reallm.registry import register
from reallm.tokenizers._surfaces import SurfaceTokenizer
from reallm.tokenizers.character import describe_characters, fingerprint, process_folder

SPACE_MARK = "\u2581"


@register("tokenizer", "sentencepiece")
class SentencePieceTokenizer(SurfaceTokenizer):
    """The pieces of a sentencepiece model, byte fallback included.

    Args:
        path: the ``.model`` file.

    Raises InputError for a file that is missing or no sentencepiece model.
    """

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path} does not exist: make it with `reallm tokenizer sentencepiece --train MANIFEST --out {path}`")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=self.path.read_bytes())
            self.vocab_size = self._model.get_piece_size()
        except RuntimeError as error:
            raise InputError(f"{path} is not a sentencepiece model ({error}): make it with `reallm tokenizer sentencepiece`") from None
        model = self._model
        pieces = [model.id_to_piece(i) for i in range(self.vocab_size)]
        self.fingerprint = fingerprint("sentencepiece", pieces)
        named = {"unk": model.unk_id(), "bos": model.bos_id(), "eos": model.eos_id(), "pad": model.pad_id()}
        self.special_ids = {name: token_id for name, token_id in named.items() if token_id >= 0}
        self.surfaces = [self._surface(i, piece) for i, piece in enumerate(pieces)]

    def _surface(self, token_id: int, piece: str) -> bytes | str:
        if self._model.is_byte(token_id):
            return bytes([int(piece[3:5], 16)])
        if self._model.is_control(token_id):
            return ""
        if self._model.is_unknown(token_id):
            return str(self._model.decode([token_id]))
        return piece.replace(SPACE_MARK, " ")

    @classmethod
    def train(cls, texts: Iterable[str], path: Path, vocab_size: int = 500, byte_fallback: bool = False) -> "SentencePieceTokenizer":
        """Train a unigram model of ``vocab_size`` pieces, unk included, and write it to ``path``.

        The text is taken as it is (no Unicode normalization), every character of it is covered; the order of the texts does
        not matter. Raises InputError when
        there is no text or the vocabulary does not fit it.
        """
        import sentencepiece

        lines = sorted(line for line in (" ".join(text.split()) for text in texts) if line)
        if not lines:
            raise InputError(f"no text to make {path} from: the transcripts are empty")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=vocab_size,
                model_type="unigram",
                character_coverage=1.0,
                normalization_rule_name="identity",
                byte_fallback=byte_fallback,
                max_sentence_length=max(4192, *(len(line.encode()) + 1 for line in lines)),
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise InputError(f"--vocab-size {vocab_size} does not fit these transcripts: {_fix(str(error))}") from None
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path), "wb") as file:
            file.write(model.getvalue())
        return cls(path)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "SentencePieceTokenizer":
        """A model of 290 pieces with byte fallback, stored in ``folder`` (default: one that goes with the process)."""
        text = "the quick brown fox jumps over the lazy dog while the other dogs watch the foxes jump over lazy brown logs"
        return cls.train([text] * 4, (folder or process_folder()) / "pieces.model", vocab_size=290, byte_fallback=True)

    def encode(self, text: str) -> list[int]:
        """Raises InputError that names the characters which the model does not cover."""
        text = " ".join(text.split())
        token_ids = self._model.encode(text)
        if self._model.unk_id() in token_ids:
            unknown = sorted(c for c in set(text) if self._model.unk_id() in self._model.encode(c))
            raise InputError(
                f"{describe_characters(unknown)} in {text!r} not known to {self.path}: clean the transcript or train the tokenizer on it"
            )
        return list(token_ids)


def _fix(error: str) -> str:
    """The advice in one of sentencepiece's messages, else all of it in one line."""
    limit = re.search(r"to a value <= (\d+)", error)
    if limit:
        return f"give at most {limit[1]}"
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", error)
    return f"give at least {needed[1]}" if needed else " ".join(error.split())
