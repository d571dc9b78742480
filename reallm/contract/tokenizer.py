"""The contract of tokenizers: text to token ids and back."""

from typing import Any

import torch

from reallm.contract.component import tiny
from reallm.contract.requirement import require
from reallm.errors import InputError
from reallm.protocols import TextState


def id_sequences(tokenizer: Any) -> list[list[int]]:
    """Random ids, the special ones left out, each id somewhere."""
    generator = torch.Generator().manual_seed(0)
    special = set(tokenizer.special_ids.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special]
    chosen = [torch.randint(len(ordinary), (length,), generator=generator) for length in (0, 1, 2, 5, 20, 50)]
    return [[ordinary[int(i)] for i in ids] for ids in chosen] + [ordinary]


def texts(tokenizer: Any) -> list[str]:
    """Texts of what the tokenizer knows, with single spaces."""
    shown = ["".join(c for c in tokenizer.decode(ids) if c.isprintable()) for ids in id_sequences(tokenizer)]
    return [" ".join(text.split()) for text in shown]


def check_round_trip(cls: Any) -> None:
    """A text encodes to ids below ``vocab_size`` and decodes to itself; an empty one gives no ids."""
    tokenizer = tiny(cls)
    for text in texts(tokenizer):
        ids = tokenizer.encode(text)
        wrong = [i for i in ids if not 0 <= i < tokenizer.vocab_size]
        require(not wrong, f"ids {wrong} of {text!r} are not below the vocabulary size {tokenizer.vocab_size}")
        require(tokenizer.decode(ids) == text, f"{text!r} comes back as {tokenizer.decode(ids)!r}")
    require(tokenizer.encode("") == [] and tokenizer.decode([]) == "", "an empty text gives ids, or no ids give a text")


def check_incremental_decoding(cls: Any) -> None:
    """What token after token adds, joined, is the decoded text, up to spaces at the end."""
    tokenizer = tiny(cls)
    sequences = id_sequences(tokenizer) + [tokenizer.encode(text) for text in texts(tokenizer)]
    for ids in sequences:
        state, shown = TextState(), ""
        for token_id in ids:
            piece, state = tokenizer.decode_step(token_id, state)
            shown += piece
        whole = tokenizer.decode(ids)
        require(shown.rstrip(" ") == whole.rstrip(" "), f"ids {ids} decode step by step to {shown!r}, at once to {whole!r}")


def check_unknown_characters(cls: Any) -> None:
    """A character it does not know raises InputError that names it; one it can spell comes back."""
    tokenizer, character = tiny(cls), "\u0b83"
    try:
        decoded = tokenizer.decode(tokenizer.encode(character))
    except InputError as error:
        require(character in str(error) or "0B83" in str(error).upper(), f"the error for {character!r} does not name it: {error}")
    else:
        require(decoded == character, f"{character!r} is unknown, but was encoded and came back as {decoded!r}: raise InputError")


def check_fingerprint(cls: Any) -> None:
    """Equal vocabularies have equal fingerprints, and special ids lie below ``vocab_size``."""
    first, second = tiny(cls), tiny(cls)
    require(isinstance(first.fingerprint, str) and first.fingerprint, "fingerprint is not a text")
    require(first.fingerprint == second.fingerprint, "the same vocabulary has two fingerprints")
    wrong = {name: i for name, i in first.special_ids.items() if not 0 <= i < first.vocab_size}
    require(not wrong, f"special ids {wrong} are not below the vocabulary size {first.vocab_size}: BLANK is not the tokenizer's")


CHECKS = [check_round_trip, check_incremental_decoding, check_unknown_characters, check_fingerprint]
