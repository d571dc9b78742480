"""From what a system puts out to the words of one stream."""

from collections.abc import Sequence
from typing import NamedTuple

from reallm.errors import CapacityError
from reallm.protocols import System, more_room
from reallm.streaming.readback import Rows, Said
from reallm.streaming.transcript import Transcript
from reallm.types import Hypothesis, Scored, ScoredText, Seconds

# Why a stream ends whose scores compare with nothing any more: what it would say from then on means nothing.
NAN_SCORES = "the model's scores became NaN: the audio, or a weight, is out of the range of its numbers"


class Partial(NamedTuple):
    """What a stream has recognized so far."""

    stable: Hypothesis  # never taken back
    tail: str  # text behind it that the best hypothesis of a search says just now, and may take back


MOST_KEPT = 16  # steps of which the words wait to be made: whoever asks for them holds the engine's lock for that long


class _News(NamedTuple):
    said: Said
    accepted: Seconds
    duration: Seconds  # of the audio that the system has


class Listener:
    """The words of one stream so far.

    An engine's worker keeps what was said, at a cost that does not hang on how much it is; words are made of it by whoever asks for them,
    while the machine computes the next step.

    Args:
        system: whose emissions are heard.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._transcript = Transcript(system.tokenizer)
        self._cap_hits = 0
        self._kept: list[_News] = []
        self.is_final = False  # all that was said has been heard
        self._hypothesis = self._transcript.hypothesis(0, False)
        self._known = self._news  # of the hypothesis

    def hear(self, rows: Rows, row: int, accepted: Seconds, samples: int) -> None:
        """What came out in a row when ``accepted`` seconds of audio were, of which the system has ``samples`` so far."""
        self._kept.append(_News(rows.said(row), accepted, samples / self._system.sample_rate))
        self._make_words()

    def keep(self, rows: Rows, row: int, accepted: Seconds, samples: int) -> None:
        """``hear``, of which the words are made later."""
        self._kept.append(_News(rows.said(row), accepted, samples / self._system.sample_rate))
        if len(self._kept) >= MOST_KEPT:
            self._make_words()

    def _make_words(self) -> None:
        kept, self._kept = self._kept, []
        for news in kept:
            self._tell(*news)

    def _tell(self, said: Said, accepted: Seconds, duration: Seconds) -> None:
        rate = self._system.sample_rate
        tokens, heard = said.tokens(), 0
        for said_before, at in [*said.speech_ends, (len(tokens), 0)]:
            for token in tokens[heard:said_before]:
                start, end = (min(max(0.0, sample / rate), duration) for sample in (token.start_samples, token.end_samples))
                self._transcript.append(token.token_id, token.log_prob, start, end, accepted)
            heard = said_before
            if at:
                self._transcript.end_speech(min(at / rate, duration), accepted)
        self._cap_hits += said.cap_hits

    def current(self) -> Hypothesis:
        """The words so far; what was returned does not change afterwards."""
        self._make_words()
        if self._known != self._news:
            self._known, self._hypothesis = self._news, self._transcript.hypothesis(self._cap_hits, self.is_final)
        return self._hypothesis

    @property
    def _news(self) -> tuple[bool, int, int, int]:
        """What makes another hypothesis when it changes."""
        return self.is_final, self._transcript.token_count, self._cap_hits, self._transcript.speech_end_count

    def preview(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens would add to ``current``, which was asked for before."""
        return self._transcript.preview(token_ids)

    def rank(self, hypotheses: Sequence[Scored]) -> None:
        """Give the final result these ``hypotheses``, best first; a text that was said in several ways has the best one's score."""
        texts: dict[str, float] = {}
        for one in hypotheses:
            texts.setdefault(self._system.tokenizer.decode(one.token_ids), one.score)
        self.current().n_best = [ScoredText(*item) for item in texts.items()]


def at_capacity(accepted: Seconds, system: System) -> CapacityError:
    """Why a stream of the system ends whose decoder has no room for more."""
    advice = more_room(getattr(system, "decoder", None))
    return CapacityError(f"the stream ends after {accepted:.1f} s, at the decoder's capacity: split the audio, or {advice}")
