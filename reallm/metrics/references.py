"""What was really said, and when, as far as a manifest knows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lhotse.cut import Cut, MixedCut, PaddingCut

from reallm.data.alignments import words as true_words
from reallm.data.cuts import speaker_of, text_of
from reallm.types import Seconds, Word

SAME_TIME = 0.005  # seconds: an aligned word is the recording that was mixed in at its start


@dataclass
class Reference:
    """One utterance of a manifest."""

    id: str
    words: list[str]
    spoken: list[Word]  # the same words with their times, or [] where the manifest does not know them
    seconds: Seconds
    speaker: str = ""
    recordings: list[str] = field(default_factory=list)  # of each word: what it was cut from


def _recording_of(cut: Cut, word: Word) -> str | None:
    """The id of the recording that was mixed in where the word starts, and is as long."""
    if not isinstance(cut, MixedCut):
        return None
    for track in cut.tracks:
        if isinstance(track.cut, PaddingCut) or not hasattr(track.cut, "recording_id"):
            continue
        if abs(track.offset - word.start) < SAME_TIME and abs(track.cut.duration - (word.end - word.start)) < SAME_TIME:
            return str(track.cut.recording_id)
    return None


def reference(cut: Cut) -> Reference:
    """The reference of a cut. Word times are left out where they are not those of the transcript's words."""
    words = text_of(cut).split()
    spoken = true_words(cut)
    if [word.word for word in spoken] != words:
        spoken = []
    recordings = [_recording_of(cut, word) or cut.id for word in spoken] or [cut.id] * len(words)
    return Reference(cut.id, words, spoken, cut.duration, speaker_of(cut), recordings)


def references(cuts: Iterable[Cut]) -> dict[str, Reference]:
    """References by the id of their cut."""
    return {cut.id: reference(cut) for cut in cuts}
