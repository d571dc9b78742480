"""The tokenizer of a published language model, decoded one token at a time.

Two families of them are known by their decoder: byte-level pieces (GPT-2, Llama 3, Qwen), whose letters each stand for a byte, and
pieces in which U+2581 is a space (Llama 1 and 2, Mistral, Gemma), with byte pieces for what they cannot spell.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reallm.errors import InputError, at_least, how_to_get
from reallm.registry import register
from reallm.tokenizers._surfaces import SurfaceTokenizer
from reallm.tokenizers.character import describe_characters, fingerprint, process_folder

SPACE_MARK = "\u2581"
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
# What does not change which ids a text has.
IRRELEVANT = {"version", "truncation", "padding", "post_processor"}


@register("tokenizer", "huggingface")
class HuggingFaceTokenizer(SurfaceTokenizer):
    """The tokens of a ``tokenizer.json``.

    Every word has its leading space, the first one too, so that a word has the same tokens wherever it stands. Special tokens have
    no text, and none of them is ever given by :meth:`encode`.

    Args:
        path: the ``tokenizer.json`` in the folder of the language model.

    Raises InputError for a file that is missing, damaged, or of another family than those above.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise InputError(f"tokenizer 'huggingface' needs tokenizers: {how_to_get('llm')}") from None
        self.path = Path(path)
        content = _read(self.path)
        try:
            self._model = Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the library has no type of its own
            raise InputError(f"{path} is no tokenizer ({' '.join(str(error).split())}): copy the LLM's tokenizer.json again") from None
        self._model.no_truncation()
        self._model.no_padding()
        self._model.encode_special_tokens = True  # a text that says "</s>" means these letters
        ids = self._model.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        added = {int(token["id"]): token for token in content.get("added_tokens") or ()}
        self.special_ids = {str(token["content"]): token_id for token_id, token in added.items() if token["special"]}
        self.fingerprint = _fingerprint(content)
        surface = _surface_of(content.get("decoder"), self.path)
        self.surfaces: list[bytes | str] = [b""] * self.vocab_size
        for piece, token_id in ids.items():
            special = token_id in added and added[token_id]["special"]
            self.surfaces[token_id] = b"" if special else piece if token_id in added else surface(piece)
        unknown = content["model"].get("unk_token")
        self._unknown = ids.get(unknown) if isinstance(unknown, str) else content["model"].get("unk_id")
        self._prefix = "" if self._begins_with_space("a") else " " if self._begins_with_space(" a") else ""

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "HuggingFaceTokenizer":
        """Byte-level pieces, 290 of them and a special one, stored in ``folder`` (default: one that goes with the process)."""
        text = "the quick brown fox jumps over the lazy dog while the other dogs watch the foxes jump over lazy brown logs"
        return cls.train([text] * 4, (folder or process_folder()) / "tokenizer.json", vocab_size=291)

    @classmethod
    def train(cls, texts: Iterable[str], path: Path, vocab_size: int = 32000) -> "HuggingFaceTokenizer":
        """Byte-level pieces as GPT-2 has them, found in ``texts``, and one special token: for an LLM of random weights.

        At most ``vocab_size`` of them, and fewer where the texts have no pair that occurs twice. Raises InputError for less than 257, which
        every byte needs.
        """
        at_least(257, vocab_size=vocab_size)
        try:
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        except ModuleNotFoundError:
            raise InputError(f"tokenizer 'huggingface' needs tokenizers: {how_to_get('llm')}") from None
        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, min_frequency=2, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
        )
        model.train_from_iterator(texts, trainer)
        model.save(str(path))
        return cls(path)

    def encode(self, text: str) -> list[int]:
        """Raises InputError that names the characters which the tokenizer cannot spell, or changes."""
        text = " ".join(text.split())
        if not text:
            return []
        token_ids = self._encode(text)
        if self._unknown is not None and self._unknown in token_ids:
            unknown = sorted(c for c in set(text) if self._unknown in self._encode(c))
            raise InputError(f"{describe_characters(unknown)} in {text!r} not known to {self.path}: clean the transcript")
        back = self.decode(token_ids)
        if back != text:
            changed = sorted(set(text) - set(back)) or sorted(set(text))
            raise InputError(f"{self.path} makes {back!r} of {text!r} ({describe_characters(changed)}): clean the transcript")
        return token_ids

    def _encode(self, text: str) -> list[int]:
        return list(self._model.encode(self._prefix + text, add_special_tokens=False).ids)

    def _begins_with_space(self, text: str) -> bool:
        ids = self._model.encode(text, add_special_tokens=False).ids
        return bool(ids) and self.surfaces[ids[0]][:1] in (" ", b" ")


def fingerprint_in(path: Path) -> str:
    """The ``fingerprint`` of the tokenizer in a ``tokenizer.json``. Raises InputError as the constructor does for a file that is none."""
    return _fingerprint(_read(path))


def _fingerprint(content: dict[str, Any]) -> str:
    return fingerprint("huggingface", [json.dumps({k: content[k] for k in sorted(content.keys() - IRRELEVANT)})])


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the tokenizer.json in it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: the LLM's folder has no tokenizer.json; "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of transformers makes it from older files"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable JSON file ({error}): copy the LLM's tokenizer.json again") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InputError(f"{path} is no tokenizer (it has no model): name the tokenizer.json of an LLM")
    return content


def _surface_of(decoder: Any, path: Path) -> Any:
    """The function from a piece to its text, or to its bytes."""
    kinds = set(_kinds(decoder))
    if "ByteLevel" in kinds:
        letters = _byte_letters()
        return lambda piece: b"".join(bytes([letters[c]]) if c in letters else c.encode() for c in piece)
    if kinds & {"Metaspace", "Replace"}:
        spelled = "ByteFallback" in kinds

        def surface(piece: str) -> bytes | str:
            byte = BYTE_PIECE.fullmatch(piece) if spelled else None
            return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE_MARK, " ")

        return surface
    raise InputError(f"{path} has the decoder {', '.join(sorted(kinds)) or 'none'}: byte-level pieces, or pieces with U+2581, are known")


def _kinds(decoder: Any) -> Iterator[str]:
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        for part in decoder.get("decoders") or ():
            yield from _kinds(part)


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level pieces (Radford et al. 2019, GPT-2, encoder.py): itself where it can be seen."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(others)}
