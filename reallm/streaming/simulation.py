"""Utterances pushed through a recognizer as live users would push them, many at a time."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from reallm.errors import InputError
from reallm.streaming.recognizer import AnyRecognizer, Stream
from reallm.streaming.resampler import Audio
from reallm.types import Hypothesis, Seconds

Key = TypeVar("Key")


def stream_utterances(
    recognizer: AnyRecognizer, utterances: Iterable[tuple[Key, Audio, int]], piece: Seconds = 0.02
) -> Iterator[tuple[Key, Hypothesis, Seconds]]:
    """Decode utterances in pieces of equal length, in all slots of the recognizer at once.

    Args:
        recognizer: with all its slots free.
        utterances: (key, samples (S,), sample rate), taken as slots become free.
        piece: seconds pushed at a time.

    Yields (key, final result, seconds of audio) as utterances end. Each stream is decoded as soon as a piece makes a chunk
    whole, so that its words' ``emitted_at`` is what a live user would see; streams wait for each other between chunks only.

    Raises InputError for a piece that is not above 0, and its kind CapacityError for an utterance that the decoder has no room for.
    """
    if not piece > 0:
        raise InputError(f"a piece of {piece} s: give more than 0")
    waiting = iter(utterances)
    active: list[_Utterance] = []
    while True:
        while len(active) < recognizer.max_streams:
            following = next(waiting, None)
            if following is None:
                break
            key, samples, rate = following
            active.append(_Utterance(key, recognizer.stream(), samples, rate, piece))
        if not active:
            return
        for utterance in active:
            utterance.push_until_ready()
        recognizer.step()
        for utterance in active:
            error = utterance.stream.error
            if error is not None:
                raise type(error)(f"utterance '{utterance.key}': {error}")
        for utterance in [u for u in active if u.stream.is_final]:
            active.remove(utterance)
            yield utterance.key, utterance.stream.finish(), utterance.stream.accepted


class _Utterance:
    """What of an utterance is still to be pushed."""

    def __init__(self, key: Any, stream: Stream, samples: Audio, rate: int, piece: Seconds) -> None:
        self.key, self.stream, self.samples, self.rate = key, stream, samples, rate
        self.piece_samples = max(1, round(piece * rate))
        self.pushed = 0

    def push_until_ready(self) -> None:
        while not (self.stream.is_ready or self.stream.is_final or self.stream.error):
            if self.pushed >= len(self.samples):
                self.stream.input_finished()
                return
            self.stream.accept_waveform(self.samples[self.pushed : self.pushed + self.piece_samples], self.rate)
            self.pushed += self.piece_samples
