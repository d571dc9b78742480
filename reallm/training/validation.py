"""Validation is what users do: the dev set is streamed through the recognizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reallm.streaming.recognizer import Recognizer

STREAMS = 16  # decoded together


@dataclass(frozen=True)
class StreamingValidation:
    """Streams the first ``limit`` cuts of a manifest (0 = all) and counts word errors.

    Raises InputError for a manifest that is missing, broken or empty, when it is called.
    """

    manifest: Path
    limit: int = 0

    def __call__(self, system: Any) -> dict[str, float]:
        """``wer`` (percent), ``words`` of the reference, and ``errors``."""
        from reallm.data.cuts import read_cuts, text_of
        from reallm.metrics.word_errors import ErrorCounts, align_words

        cuts = list(read_cuts(self.manifest))[: self.limit or None]
        recognizer = Recognizer(system, max_streams=STREAMS)
        hypotheses: list[str] = []
        for first in range(0, len(cuts), STREAMS):
            hypotheses += self._transcripts(recognizer, cuts[first : first + STREAMS])
        counts = ErrorCounts()
        for cut, hypothesis in zip(cuts, hypotheses, strict=True):
            counts.add(align_words(text_of(cut).split(), hypothesis.split()))
        return {"wer": counts.wer or 0.0, "errors": counts.errors, "words": counts.words}

    def _transcripts(self, recognizer: Recognizer, cuts: Sequence[Any]) -> list[str]:
        from reallm.data.cuts import load_audio

        streams = [recognizer.stream() for _ in cuts]
        rate = recognizer.system.sample_rate
        for stream, cut in zip(streams, cuts, strict=True):
            stream.accept_waveform(load_audio(cut, rate), rate)
        return [hypothesis.text for hypothesis in recognizer.finish(streams)]
