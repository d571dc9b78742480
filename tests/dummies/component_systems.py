"""Small systems with one component of one's choice, which the others fit."""

from pathlib import Path
from typing import Any

from reallm.registry import catalogue, find, spec_of

KINDS = ["frontend", "encoder", "adapter", "interleaver", "decoder", "predictor", "searcher", "tokenizer"]
COMPONENTS = [(kind, name) for kind in KINDS for name in catalogue(kind)]
WIDER = 8


def wide(kind: str, name: str) -> Any:
    """As ``tiny()``, but wider where a width is an argument: sums of few numbers are the same in whatever order they are made."""
    cls: Any = find(kind, name)
    kwargs = spec_of(cls.tiny()).kwargs
    return cls(**{key: WIDER * value if key in ("dim", "output_dim") else value for key, value in kwargs.items()})


def words(number: int, folder: Path) -> Any:
    """A tokenizer of so many words."""
    tokenizer: Any = find("tokenizer", "word")
    return tokenizer.train([" ".join(chr(ord("a") + word) for word in range(number))], folder / f"{number}.json")


def system_with(kind: str, name: str, folder: Path) -> Any:
    """A small Speech ReaLLM, or a transducer, with one component of its own choice, which the others fit."""
    own = {kind: wide(kind, name)} if kind != "interleaver" else {}
    speaks = own.get("decoder") or own.get("predictor")
    tokenizer = own.get("tokenizer") or (words(speaks.vocab_size - 1, folder) if speaks else find("tokenizer", "character").tiny())
    blank_id = tokenizer.vocab_size
    mels, adapter = own["frontend"].output_dim if kind == "frontend" else 8, own.get("adapter")
    dim, stride = (adapter.input_dim, adapter.stride) if adapter else (16, 1)
    encoder = own.get("encoder") or find("encoder", "conformer")(
        mels, dim, layers=2, heads=1, hidden=24, kernel=3, chunk_size=4 * stride, left=5, right=stride, dropout=0.0
    )
    parts = {
        "frontend": own.get("frontend") or find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
        "encoder": encoder,
        "searcher": own.get("searcher") or find("searcher", "greedy").tiny(),
        "tokenizer": tokenizer,
    }
    if kind == "predictor":
        return find("system", "transducer")(**parts, predictor=speaks, flush_periods=1)
    dim = adapter.output_dim if adapter else speaks.input_dim if speaks else 64
    return find("system", "speech_reallm")(
        **parts,
        adapter=adapter or find("adapter", "stack")(input_dim=encoder.output_dim, output_dim=dim, stride=1),
        decoder=speaks or find("decoder", "llama")(vocab_size=blank_id + 1, dim=dim, layers=2, heads=2, window=16),
        interleaver=find("interleaver", name if kind == "interleaver" else "blank")(blank_id=blank_id),
    )
