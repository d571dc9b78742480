"""References of cuts."""

from pathlib import Path

from reallm.data.alignments import with_words
from reallm.metrics.references import reference
from reallm.types import Word
from tests.dummies.data import silent_cut


def test_words_know_the_recordings_that_they_were_cut_from(tmp_path: Path) -> None:
    noise, one, two = (
        silent_cut(tmp_path, "noise", 3.0, "one two one"),
        silent_cut(tmp_path, "rec-one", 0.5),
        silent_cut(tmp_path, "rec-two", 0.4),
    )
    mixed = noise.mix(one, offset_other_by=0.25).mix(two, offset_other_by=1.0).mix(one, offset_other_by=1.4)
    words = [Word("one", 0.25, 0.75), Word("two", 1.0, 1.4), Word("one", 1.4, 1.9)]
    found = reference(with_words(mixed, words))
    assert found.words == ["one", "two", "one"]
    assert found.recordings == ["rec-one", "rec-two", "rec-one"]
    assert [w.end for w in found.spoken] == [0.75, 1.4, 1.9]
    assert (found.speaker, found.seconds) == ("anna", 3.0)


def test_without_true_words_the_utterance_is_the_group(tmp_path: Path) -> None:
    cut = silent_cut(tmp_path, "rec", 1.0, "one two")
    found = reference(cut)
    assert (found.words, found.spoken, found.recordings) == (["one", "two"], [], ["rec", "rec"])
    # Times of other words than those of the transcript would be compared with the wrong ones.
    assert reference(with_words(cut, [Word("one", 0.1, 0.2)])).spoken == []
