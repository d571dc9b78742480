"""Whole utterances behind the interface of streams, for systems that do not answer while they listen."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from reallm.layers.full_precision import audio_dtype
from reallm.protocols import System, streams
from reallm.streaming.options import Chosen
from reallm.streaming.readback import Rows
from reallm.streaming.recognizer import AnyRecognizer, Recognizer, Stream

LONGEST = 300.0  # seconds of an utterance: attention to all of it needs memory by their square
BATCH = 600.0  # seconds of utterances that are recognized together, padding included


class OfflineRecognizer(AnyRecognizer):
    """Recognizes a stream when it has ended, with those of like length that have ended too. All words are emitted at the end.

    A stream keeps all of its audio until then; one that becomes longer than LONGEST ends there, with an error of its own.

    Args:
        system: a trained system in eval mode.
        max_streams: streams at a time, which are recognized in batches of BATCH.

    Raises InputError for what is no system, when it is in training mode, or when ``max_streams`` is below 1.
    """

    def _renew(self, row: int, chosen: Chosen | None) -> None:
        """A row holds nothing from one utterance to the next, and there is nothing to choose."""

    def _can_decode(self, waiting: int) -> bool:
        return False

    def _flush_samples(self, samples: int) -> int:
        return 0  # ``recognize`` adds them

    def _refusal(self, waiting: int) -> str | None:
        if waiting <= LONGEST * self.system.sample_rate:
            return None
        return (
            f"more than {LONGEST:.0f} s are too long for a system that recognizes whole utterances: split the audio into pieces "
            f"of {LONGEST:.0f} s at most, or use a system that streams"
        )

    def step(self) -> bool:
        """Recognize every stream that has ended; False when there was none."""
        ended = sorted(self._ready, key=lambda stream: len(stream._queue), reverse=True)
        for first, last in _batches([len(stream._queue) for stream in ended], BATCH * self.system.sample_rate):
            with self._closing_at_errors(ended[first:last]):
                self._recognize(ended[first:last])
        return bool(ended)

    @torch.inference_mode()
    def _recognize(self, ended: Sequence[Stream]) -> None:
        lens = [len(stream._queue) for stream in ended]
        wav = np.zeros((len(ended), max(lens)), dtype=np.float32)
        for row, stream in enumerate(ended):
            stream._queue.take_into(wav[row])
            stream._flushed = True
        audio, audio_lens = torch.from_numpy(wav).to(self.device, audio_dtype(self._dtype)), torch.tensor(lens, device=self.device)
        rows = Rows(self.system.recognize(audio, audio_lens), self.system)
        for row, stream in enumerate(ended):
            stream._hear(rows, row)


def _batches(lens: Sequence[int], most: float) -> Iterator[tuple[int, int]]:
    """Where batches begin and end of utterances of ``lens`` samples, longest first: each of ``most`` at most, padded, or one."""
    first = 0
    while first < len(lens):
        last = min(len(lens), first + max(1, int(most // max(lens[first], 1))))
        yield first, last
        first = last


def recognizer_for(system: System, max_streams: int = 1) -> AnyRecognizer:
    """A Recognizer for a system that streams, else an OfflineRecognizer; both are used in the same way.

    Raises InputError as they do.
    """
    return Recognizer(system, max_streams) if streams(system) else OfflineRecognizer(system, max_streams)
