"""Run-time settings of a system and its components, as ``--set searcher.blank_penalty=2``."""

import dataclasses
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.errors import InputError, nearest

Phrases = Annotated[
    Path | None, typer.Option("--phrases", metavar="FILE", help="Phrases to be biased towards, one a line: rare words, names.")
]
PhraseBonus = Annotated[
    float | None, typer.Option("--phrase-bonus", help="Log-probability that each word of a phrase is given. Default: 3.")
]


def apply_settings(system: Any, settings: Sequence[str]) -> dict[str, Any]:
    """Build components of ``system`` anew with other numbers for their constructor; returns what was set.

    Only components without weights, such as the searcher: the others' arguments belong to what was trained. But for
    ``encoder.chunk_size`` of a system that streams: encoder frames a chunk, which streams may choose; and ``system.NAME`` for what
    a system that searches itself has among its ``search_settings``.

    Raises InputError for a setting that is not PART.NAME=NUMBER, names something that the system does not have, or gives a
    value that the component refuses.
    """
    from torch import nn

    from reallm.registry import spec_of

    done: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        part, dot, name = path.partition(".")
        if not (equals and dot):
            raise InputError(f"--set '{setting}': write PART.NAME=NUMBER, such as searcher.blank_penalty=2")
        if path == "encoder.chunk_size":
            done[path] = _use_chunk(system, setting, text)
            continue
        if part == "system":
            done[path] = _use_search(system, setting, name, text)
            continue
        components = {n: getattr(system, n) for n, value in spec_of(system).kwargs.items() if hasattr(value, "component_spec")}
        parts = [n for n, component in components.items() if not isinstance(component, nn.Module)]
        if part not in parts:
            parts += ["system"] if getattr(system, "search_settings", ()) else []
            fixed = "is trained with its settings" if part in components else f"is no part of the system{nearest(part, parts)}"
            raise InputError(f"--set '{setting}': '{part}' {fixed}: one of {', '.join(parts)}")
        component = components[part]
        names = [n for n in inspect.signature(type(component)).parameters if type(getattr(component, n, None)) in (int, float)]
        if name not in names:
            raise InputError(f"--set '{setting}': {part} has no number '{name}'{nearest(name, names)}: it has {', '.join(names) or 'none'}")
        value = _number(setting, text, component, name)
        try:
            rebuilt = type(component)(**{**spec_of(component).kwargs, name: value})
        except InputError as error:
            raise InputError(f"--set '{setting}': {error}") from None
        setattr(system, part, rebuilt)
        done[path] = value
    return done


def _number(setting: str, text: str, component: Any, name: str) -> int | float:
    """As the constructor of the component wants it: what a configuration gave may be a whole number by chance."""
    kind = float if inspect.signature(type(component)).parameters[name].annotation is float else type(getattr(component, name))
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--set '{setting}': '{text}' is not a {'whole' if kind is int else 'finite'} number")
    return value


def _use_search(system: Any, setting: str, name: str, text: str) -> int | float:
    """Let a system that searches itself do so otherwise. Raises InputError for what it has not, or refuses."""
    import torch

    from reallm.registry import spec_of

    names = list(getattr(system, "search_settings", ()))
    if name not in names:
        raise InputError(
            f"--set '{setting}': system '{spec_of(system).name}' has {', '.join(names) or 'nothing'} to set{nearest(name, names)}"
        )
    value = _number(setting, text, system, name)
    try:
        with torch.device("meta"):  # its constructor knows what may be; without memory for weights
            type(system)(**{**spec_of(system).kwargs, name: value})
    except InputError as error:
        raise InputError(f"--set '{setting}': {error}") from None
    setattr(system, name, value)
    return value


def _use_chunk(system: Any, setting: str, text: str) -> int:
    """Let the encoder stream in chunks of so many frames. Raises InputError for chunks that the system cannot stream in."""
    from reallm.protocols import streams
    from reallm.registry import spec_of

    if not streams(system):
        raise InputError(f"--set '{setting}': system '{spec_of(system).name}' hears the whole utterance first: leave it out")
    heard: Any = system  # an AcousticModel, as all that stream
    chunk = heard.encoder.chunk
    stride = heard.period_samples // heard.frame_samples  # encoder frames a token period
    if not text.isdecimal() or int(text) < max(1, chunk.right) or int(text) % stride:
        raise InputError(
            f"--set '{setting}': a chunk is a multiple of {stride} encoder frames (the token period), {max(stride, chunk.right)} at least"
        )
    heard.encoder.chunk = dataclasses.replace(chunk, size=int(text))
    return int(text)


def use_delay(system: Any, seconds: float) -> dict[str, Any]:
    """Let all streams of ``system`` answer so many seconds late; returns what was set. Raises InputError as ``delay_periods``."""
    from reallm.protocols import delay_periods

    system.delay = delay_periods(system, seconds)
    return {"delay": seconds}


def use_phrases(system: Any, file: Path | None, bonus: float | None) -> dict[str, Any]:
    """Bias all streams of ``system`` towards the phrases in ``file``, one a line; returns what was set.

    Raises InputError for a system without a search, a file that cannot be read or is empty, a phrase that cannot be spelled, and a bonus
    without phrases.
    """
    from reallm.fingerprints import of_file
    from reallm.streaming.options import PHRASE_BONUS, add_phrases

    if file is None:
        if bonus is not None:
            raise InputError(f"--phrase-bonus {bonus:g}: it is that of --phrases FILE: add it, or leave this out")
        return {}
    try:
        phrases = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--phrases {file}: cannot be read as UTF-8 text ({error}): name a file with one phrase a line") from None
    if not phrases:
        raise InputError(f"--phrases {file}: it holds no phrase: write one a line")
    bonus = PHRASE_BONUS if bonus is None else bonus
    try:
        added = add_phrases(system, phrases, bonus)
    except InputError as error:
        raise InputError(f"--phrases {file}: {error}") from None
    system.searcher.phrases.default = added
    return {"phrases": len(phrases), "phrases_sha256": of_file(file), "phrase_bonus": bonus}


def use_beam(system: Any, beam: int) -> dict[str, Any]:
    """Let ``system`` search with ``beam`` hypotheses; returns what was set.

    A system with a searcher gets searcher 'beam', with those of its searcher's settings that both know; others have a ``beam`` themselves.

    Raises InputError for a system that has no search.
    """
    from reallm.protocols import Searcher
    from reallm.registry import find, spec_of

    if isinstance(getattr(system, "searcher", None), Searcher):
        cls = find("searcher", "beam")
        known = inspect.signature(cls).parameters
        shared = {name: value for name, value in spec_of(system.searcher).kwargs.items() if name in known}
        system.searcher = cls(**{**shared, "beam": beam})
    elif isinstance(getattr(system, "beam", None), int):
        system.beam = beam
    else:
        raise InputError(
            f"--beam {beam}: system '{spec_of(system).name}' takes the best label of every frame and has no search: leave it out"
        )
    return {"beam": beam}
