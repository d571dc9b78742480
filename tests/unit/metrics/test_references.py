"""References of cuts."""

from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from reallm.data.alignments import with_words
from reallm.metrics.references import reference
from reallm.types import Word


def make(folder: Path, name: str, seconds: float) -> MonoCut:
    soundfile.write(folder / f"{name}.wav", np.zeros(int(seconds * 8000)), 8000)
    recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
    return MonoCut(name, 0, recording.duration, 0, recording=recording)


def test_words_know_the_recordings_that_they_were_cut_from(tmp_path: Path) -> None:
    noise, one, two = make(tmp_path, "noise", 3.0), make(tmp_path, "rec-one", 0.5), make(tmp_path, "rec-two", 0.4)
    noise.supervisions = [SupervisionSegment("s", "noise", 0, 3.0, text="one two one", speaker="anna")]
    mixed = noise.mix(one, offset_other_by=0.25).mix(two, offset_other_by=1.0).mix(one, offset_other_by=1.4)
    words = [Word("one", 0.25, 0.75), Word("two", 1.0, 1.4), Word("one", 1.4, 1.9)]
    found = reference(with_words(mixed, words))
    assert found.words == ["one", "two", "one"]
    assert found.recordings == ["rec-one", "rec-two", "rec-one"]
    assert [w.end for w in found.spoken] == [0.75, 1.4, 1.9]
    assert (found.speaker, found.seconds) == ("anna", 3.0)


def test_without_true_words_the_utterance_is_the_group(tmp_path: Path) -> None:
    cut = make(tmp_path, "rec", 1.0)
    cut.supervisions = [SupervisionSegment("s", "rec", 0, 1.0, text="one two")]
    found = reference(cut)
    assert (found.words, found.spoken, found.recordings) == (["one", "two"], [], ["rec", "rec"])
    # Times of other words than those of the transcript would be compared with the wrong ones.
    assert reference(with_words(cut, [Word("one", 0.1, 0.2)])).spoken == []
