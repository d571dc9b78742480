"""Validation is what users do: the dev set goes through the recognizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reallm.errors import InputError
from reallm.streaming.offline import recognizer_for
from reallm.streaming.simulation import stream_utterances

STREAMS = 16  # decoded together
PIECE = 1.0  # seconds pushed at a time: when words come out does not matter here


@dataclass(frozen=True)
class StreamingValidation:
    """Streams the first ``limit`` cuts of a manifest (0 = all) and counts word errors.

    Raises InputError for a manifest that is missing, broken, empty or without any words, when it is called.
    """

    manifest: Path
    limit: int = 0

    def __call__(self, system: Any) -> dict[str, float]:
        """``wer`` (percent), ``words`` of the reference, and ``errors``."""
        from reallm.data.cuts import load_audio, read_cuts, text_of
        from reallm.metrics.word_errors import ErrorCounts, align_words

        cuts = list(read_cuts(self.manifest))[: self.limit or None]
        rate = system.sample_rate
        utterances = ((text_of(cut), load_audio(cut, rate), rate) for cut in cuts)
        counts = ErrorCounts()
        for reference, hypothesis, _ in stream_utterances(recognizer_for(system, STREAMS), utterances, PIECE):
            counts.add(align_words(reference.split(), hypothesis.text.split()))
        if counts.wer is None:
            raise InputError(f"{self.manifest} holds no words to validate with: give cuts with transcripts")
        return {"wer": counts.wer, "errors": counts.errors, "words": counts.words}
