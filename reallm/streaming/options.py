"""What a stream may choose for itself, of a system that can: numbers in its row of the streaming state. B rows."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from reallm.errors import InputError
from reallm.protocols import RowOptions, StreamingSystem, System, delay_periods, takes_options, takes_phrases
from reallm.searchers._biasing import NO_PHRASES, PhraseList
from reallm.searchers._end_of_speech import NEVER
from reallm.streaming.sample_ring import Mask
from reallm.types import Seconds

PHRASE_BONUS = 3.0


class StreamOptions(TypedDict, total=False):
    """The options of ``stream()`` of a recognizer and an engine. None, or none given: as the system is set."""

    delay: Seconds | None  # that answers wait, of a system that was trained for several
    blank_penalty: float | None  # subtracted from the logit of BLANK: above 0 text comes sooner, with more insertions
    end_of_speech: Seconds | None  # of silence after which the speaker has stopped: Hypothesis.speech_ends; default: any
    phrases: Sequence[str] | None  # that the stream may well bring, whole words as they are written: contextual biasing
    phrase_bonus: float  # log-probability that each word of a phrase is given; default: PHRASE_BONUS


class Chosen(NamedTuple):
    """The options of one stream as a system understands them."""

    delay: int  # token periods
    blank_penalty: float
    silence: int  # speech embeddings
    phrase: int  # the first state
    phrases: PhraseList | None  # which is there as long as this is


def choose(
    system: System,
    delay: Seconds | None = None,
    blank_penalty: float | None = None,
    end_of_speech: Seconds | None = None,
    phrases: Sequence[str] | None = None,
    phrase_bonus: float = PHRASE_BONUS,
) -> Chosen | None:
    """The options of a stream of ``system``; None, where all are left to it. Raises InputError for those that it cannot keep."""
    if delay is None and blank_penalty is None and end_of_speech is None and phrases is None:
        return None
    own: Any = system
    periods = getattr(own, "delay", 0) if delay is None else delay_periods(system, delay)
    if blank_penalty is None:
        blank_penalty = getattr(getattr(own, "searcher", own), "blank_penalty", 0.0)
    else:
        _require_options(system, f"blank_penalty {blank_penalty:g}")
        if not math.isfinite(blank_penalty):
            raise InputError(f"blank_penalty {blank_penalty}: a finite number, such as 1.0")
    silence = NEVER
    if end_of_speech is not None:
        _require_options(system, f"end_of_speech {end_of_speech:g}")
        if not 0 < end_of_speech < math.inf:
            raise InputError(f"end_of_speech {end_of_speech:g}: seconds of silence, such as 0.8")
        silence = math.ceil(round(end_of_speech * system.sample_rate) / system.period_samples)
    known = None if phrases is None else add_phrases(system, phrases, phrase_bonus)
    start = own.searcher.phrases.start if phrases is None and takes_phrases(system) else NO_PHRASES if known is None else known.start
    return Chosen(periods, blank_penalty, silence, start, known)


def add_phrases(system: System, phrases: Sequence[str], bonus: float) -> PhraseList | None:
    """Make a list of phrases known to the searcher of ``system``; None, where it is empty.

    Raises InputError for a system that has no search, and as PhraseTable.add.
    """
    own: Any = system
    if not takes_phrases(system):
        name = getattr(system, "component_name", type(system).__name__)
        raise InputError(f"phrases: system '{name}' has no search that can be biased towards them: leave them out")
    added: PhraseList | None = own.searcher.phrases.add(phrases, bonus, system.tokenizer) if len(phrases) else None
    return added


def _require_options(system: System, option: str) -> None:
    if not takes_options(system):
        parts = [system] if not hasattr(system, "begin") else [system, getattr(system, "searcher", system)]
        name = " with searcher ".join(f"'{getattr(part, 'component_name', type(part).__name__)}'" for part in parts)
        raise InputError(f"{option}: system {name} has no such option of its streams: leave it out")


class Choices:
    """What the streams of B rows have chosen, until it is written into their state.

    Args:
        rows: B.
    """

    def __init__(self, rows: int) -> None:
        self._made = np.zeros(rows, dtype=np.bool_)
        self._columns = [np.zeros(rows, dtype=dtype) for dtype in (np.int64, np.float64, np.int64, np.int64)]  # as Chosen and RowOptions

    def put(self, row: int, chosen: Chosen | None) -> None:
        """The stream that begins in a row has ``chosen`` this."""
        self._made[row] = chosen is not None
        if chosen is not None:
            for column, value in zip(self._columns, chosen[:4], strict=True):
                column[row] = value

    def take(self) -> "TakenChoices | None":
        """What has been put since the last time; None where that is nothing."""
        if not self._made.any():
            return None
        taken = TakenChoices(self._made.copy(), [column.copy() for column in self._columns])
        self._made[:] = False
        return taken


class TakenChoices(NamedTuple):
    """Choices on their way into a state."""

    rows: Mask  # (B,)
    columns: list[Any]  # (B,) each

    def write(self, system: StreamingSystem, state: Any, device: torch.device) -> None:
        """Give them to the rows of ``state``, before their first step."""
        choosing: Any = system
        columns = (torch.from_numpy(column).to(device) for column in self.columns)
        choosing.begin(state, torch.from_numpy(self.rows).to(device), RowOptions(*columns))
