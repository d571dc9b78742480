"""What a client has to know of exported programs, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from reallm import __version__
from reallm.errors import InputError
from reallm.exporting.programs import NEXT, Program, Tensors
from reallm.protocols import TextState, Tokenizer
from reallm.systems.ctc import CTC

FORMAT = 1


def surfaces(tokenizer: Tokenizer) -> list[str | list[int]]:
    """The text of every token with its spaces; the bytes of those that are no text by themselves.

    A transcript is all of them joined, read as UTF-8, without the spaces at its ends. Raises InputError for a tokenizer with parts of
    characters that it does not show.
    """
    known: Sequence[str | bytes] | None = getattr(tokenizer, "surfaces", None)
    if known is None:
        known = []
        for token_id in range(tokenizer.vocab_size):
            text, after = tokenizer.decode_step(token_id, TextState(started=True))
            if after.pending:
                raise InputError(f"tokenizer '{type(tokenizer).__name__}' has parts of characters as tokens: give it a list 'surfaces'")
            known.append(text)
    return [surface if isinstance(surface, str) else _text_or_bytes(surface) for surface in known]


def _text_or_bytes(surface: bytes) -> str | list[int]:
    try:
        return surface.decode()
    except UnicodeDecodeError:
        return list(surface)


def describe(system: Any, programs: Mapping[str, tuple[Program, Tensors, Tensors]], about: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a system's programs, each by the name of its file, with example inputs (states included) and outputs."""
    search: dict[str, Any] = {"kind": "ctc", "blank_penalty": 0.0}
    if not isinstance(system, CTC):
        search = {"kind": "greedy", "blank_penalty": system.searcher.blank_penalty, "max_symbols": system.searcher.max_symbols}
    described: dict[str, Any] = {
        "format": FORMAT,
        "reallm": __version__,
        **about,
        "system": system.component_name,
        "sample_rate": system.sample_rate,
        "chunk_samples": system.chunk_samples,
        "period_samples": system.period_samples,
        "flush": {"periods": system.flush_periods, "multiple": getattr(getattr(system, "interleaver", None), "response_every", 1)},
        "search": {**search, "blank_id": system.tokenizer.vocab_size},
        "tokens": surfaces(system.tokenizer),
        "programs": {program.name: _interface(file, program, *tensors) for file, (program, *tensors) in programs.items()},
    }
    if getattr(system, "delay_embedding", None) is not None:
        described["delay"] = {"default": system.delay, "least": system.delays[0], "most": system.delays[1]}
    return described


def _interface(file: str, program: Program, inputs: Tensors, outputs: Tensors) -> dict[str, Any]:
    states = program.states.initial
    return {
        "file": file,
        "inputs": [_tensor(name, tensor) for name, tensor in inputs.items() if name not in states],
        "outputs": [_tensor(name, tensor) for name, tensor in outputs.items() if not name.startswith(NEXT)],
        "states": [{**_tensor(name, one), "next": NEXT + name, "initial": _initial(one)} for name, one in states.items()],
    }


def _tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["B", *tensor.shape[1:]]}


def _initial(row: Tensor) -> Any:
    """The number that fills the state of a new stream, else the numbers of its row, in nested lists."""
    first = row.flatten()[0]
    return first.item() if bool((row == first).all()) else row[0].tolist()
