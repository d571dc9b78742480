"""A manifest through the recognizer, in shards that survive a kill and that several processes share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reallm import fingerprints
from reallm.data.cuts import load_audio, text_of
from reallm.metrics.hypotheses import Recognized, to_json
from reallm.streaming.measurement import offline_mismatches
from reallm.streaming.offline import recognizer_for
from reallm.streaming.recognizer import device_of
from reallm.streaming.resampler import Audio
from reallm.streaming.simulation import stream_utterances
from reallm.types import Seconds

SHARD = 128  # utterances, and four for each stream at least: at its end streams run empty


@dataclass(frozen=True)
class ShardDecoder:
    """Decodes cuts, for :func:`reallm.jobs.in_shards`: cuts → {"hypotheses": as in ``hyps.jsonl``, "mismatches": names}.

    Args:
        system: in eval mode, on its device.
        streams: utterances decoded at a time.
        piece: audio is pushed in pieces of so many seconds.
        input_rate: audio is resampled to this rate first; None = its own.
        n_best: texts of an utterance that are kept; 0 = the best alone.
        compare_offline: name the utterances whose text is not that of the parallel pass.
    """

    system: Any
    streams: int = 32
    piece: Seconds = 0.02
    input_rate: int | None = None
    n_best: int = 0
    compare_offline: bool = False

    @property
    def shard(self) -> int:
        """Utterances of a shard."""
        return max(SHARD, 4 * self.streams)

    def key(self, cuts: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """What the hypotheses depend on; ``settings`` of the system that its specification does not tell."""
        chosen = {name: value for name, value in vars(self).items() if name != "system"}
        return {
            **chosen,
            "settings": settings,
            "system": _described(self.system),
            "weights": fingerprints.of_weights(self.system.state_dict()),
            "device": str(device_of(self.system)),
            "cuts": fingerprints.of_file(cuts),
        }

    def audio(self, cut: Any) -> tuple[str, Audio, int]:
        """Name, samples (S,) and sample rate of a cut."""
        rate = self.input_rate or cut.sampling_rate
        return cut.id, load_audio(cut, rate), rate

    def __call__(self, cuts: Sequence[Any], tick: Callable[[int], None]) -> dict[str, Any]:
        """Decode one shard. Raises InputError as :func:`load_audio` and :func:`stream_utterances`."""
        texts = {cut.id: text_of(cut) for cut in cuts}
        recognizer = recognizer_for(self.system, min(self.streams, len(cuts)))
        longest_first = sorted(cuts, key=lambda cut: -cut.duration)  # few streams are left alone at the end
        found = {}
        for key, hypothesis, seconds in stream_utterances(recognizer, map(self.audio, longest_first), self.piece):
            found[key] = Recognized.of(key, hypothesis, seconds, texts[key], self.n_best)
            tick(1)
        streamed = {key: utterance.text for key, utterance in found.items()}
        return {
            "hypotheses": [to_json(found[cut.id]) for cut in cuts],
            "mismatches": offline_mismatches(self.system, map(self.audio, cuts), streamed) if self.compare_offline else [],
        }


def _described(value: Any) -> Any:
    spec = getattr(value, "component_spec", None)
    return repr(value) if spec is None else [spec.kind, spec.name, {name: _described(given) for name, given in spec.kwargs.items()}]
