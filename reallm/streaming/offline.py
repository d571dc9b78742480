"""Whole utterances behind the interface of streams, for systems that do not answer while they listen."""

import numpy as np
import torch

from reallm.protocols import System, streams
from reallm.streaming.recognizer import AnyRecognizer, Recognizer, _Rows

LONGEST = 300.0  # seconds of an utterance: attention to all of it needs memory by their square


class OfflineRecognizer(AnyRecognizer):
    """Recognizes a stream when it has ended; those that have ended together are one batch. All words are emitted at the end.

    A stream keeps all of its audio until then; one that is longer than LONGEST ends with an error of its own.

    Args:
        system: a trained system in eval mode.
        max_streams: utterances recognized together.

    Raises InputError when the system is in training mode or ``max_streams`` is below 1.
    """

    def _renew(self, row: int) -> None:
        """A row holds nothing from one utterance to the next."""

    def _can_decode(self, waiting: int) -> bool:
        return False

    def _flush_samples(self, samples: int) -> int:
        return 0  # ``recognize`` adds them

    @torch.inference_mode()
    def step(self) -> bool:
        """Recognize every stream that has ended; False when there was none."""
        for stream in self._ready:
            if len(stream._queue) > LONGEST * self.system.sample_rate:
                stream._fail(
                    f"{stream.accepted:.0f} s are too long for a system that recognizes whole utterances: split the audio into pieces "
                    f"of {LONGEST:.0f} s at most, or use a system that streams"
                )
        ended = self._ready
        if not ended:
            return False
        lens = [len(stream._queue) for stream in ended]
        wav = np.zeros((len(ended), max(lens)), dtype=np.float32)
        for row, stream in enumerate(ended):
            stream._queue.take_into(wav[row])
        audio, audio_lens = torch.from_numpy(wav).to(self.device, self._dtype), torch.tensor(lens, device=self.device)
        rows = _Rows(self.system.recognize(audio, audio_lens), self.system)
        for row, stream in enumerate(ended):
            stream._hear(rows, row, True)
        return True


def recognizer_for(system: System, max_streams: int = 1) -> AnyRecognizer:
    """A Recognizer for a system that streams, else an OfflineRecognizer; both are used in the same way.

    Raises InputError as they do.
    """
    return Recognizer(system, max_streams) if streams(system) else OfflineRecognizer(system, max_streams)
