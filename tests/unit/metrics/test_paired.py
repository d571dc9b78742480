"""Two systems on the same utterances."""

from pathlib import Path

import pytest

from reallm.data.alignments import with_words
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from reallm.metrics.hypotheses import Recognized, read_hypotheses, write_hypotheses
from reallm.metrics.paired import Errors, compare, group_errors, mean_errors, mix_errors
from reallm.metrics.results import make_results
from reallm.metrics.statistics import bootstrap_wer, paired_bootstrap
from reallm.types import Word
from tests.dummies.data import silent_cut
from tests.dummies.hypotheses import write_decoding


def write_strings(folder: Path, strings: dict[str, list[str]]) -> Path:
    """Strings of words, each of which is the recording rec-WORD of half a second, one a second."""
    cuts = []
    for name, said in strings.items():
        string = silent_cut(folder, name, 5.0, " ".join(said))
        for number, word in enumerate(said):
            string = string.mix(silent_cut(folder, f"rec-{word}", 0.5), offset_other_by=float(number))
        cuts.append(with_words(string.with_id(name), [Word(word, float(n), n + 0.5) for n, word in enumerate(said)]))
    write_cuts(cuts, folder / "strings.jsonl.gz")
    return folder / "strings.jsonl.gz"


def counts(errors: Errors) -> dict[str, tuple[float, int]]:
    """Errors and words of each group."""
    return {name: (group.errors, group.words) for name, group in errors.items()}


def test_a_constant_difference_has_no_spread() -> None:
    found = paired_bootstrap([2, 4, 1, 3], [1, 3, 0, 2], [10, 10, 10, 10])
    assert found == (10.0, 10.0, 10.0, 0.0)
    assert paired_bootstrap([1, 3, 0, 2], [2, 4, 1, 3], [10, 10, 10, 10]) == (-10.0, -10.0, -10.0, 1.0)


def test_the_interval_is_that_of_the_difference_and_not_of_the_rates() -> None:
    errors = [n % 7 for n in range(200)]
    other = [e + (n % 2) for n, e in enumerate(errors)]
    words = [10] * 200
    found = paired_bootstrap(errors, other, words)
    assert found is not None and found.difference == -5.0 and -6.0 < found.low < -5.0 < found.high < -4.0 and found.better == 1.0
    low, high = bootstrap_wer(errors, words) or (0, 0)
    assert high - low > 2 * (found.high - found.low), "what both find hard cancels"


def test_equal_systems_are_as_good_as_each_other() -> None:
    assert paired_bootstrap([1, 0, 2], [1, 0, 2], [3, 3, 3]) == (0.0, 0.0, 0.0, 0.5)
    assert paired_bootstrap([], [], []) is None and paired_bootstrap([1], [0], [0]) is None
    with pytest.raises(ValueError, match="each group needs all three"):
        paired_bootstrap([1], [1, 2], [3, 4])


def test_rounding_breaks_no_tie() -> None:
    """Thirds, and mixtures of equals, differ from one another in the last digit."""
    found = paired_bootstrap([1 / 3, 1 / 3, 1 / 3], [0.1 + 0.2 + 1 / 30, 1 / 3, 1 / 3 - 1e-16], [1, 1, 1])
    assert found == (0.0, 0.0, 0.0, 0.5) and "-0.0" not in str(found)
    assert "-0.0" not in str(paired_bootstrap([0.3], [0.1 + 0.2], [1]))


def test_errors_of_decodings_and_the_mean_of_seeds(tmp_path: Path) -> None:
    one = write_decoding(tmp_path / "1", {"a": ("ONE TWO", "one two"), "b": ("SIX", "NINE EIGHT")}, normalization="librispeech")
    two = write_decoding(tmp_path / "2", {"b": ("SIX", "six"), "a": ("ONE TWO", "")}, normalization="librispeech")
    first, second = group_errors(one), group_errors(two)
    assert counts(first) == {"a": (0, 2), "b": (2, 1)} and counts(second) == {"a": (2, 2), "b": (0, 1)}
    assert counts(mean_errors([first, second])) == {"a": (1, 2), "b": (1, 1)}
    assert counts(mix_errors([first, second], [0.75, 0.25])) == {"a": (0.5, 2), "b": (1.5, 1)}
    assert compare(first, second).difference == 0.0
    third = group_errors(write_decoding(tmp_path / "3", {"a": ("ONE TWO", "ONE TWO")}))
    with pytest.raises(InputError, match="not the same in both for 1 utterances, recordings or speakers, such as 'b'"):
        compare(first, third)
    with pytest.raises(InputError, match="such as 'b'"):
        mean_errors([first, third])
    write_hypotheses(one / "hyps.jsonl", [Recognized("a", "one", [], 1.0)])
    with pytest.raises(InputError, match="utterance 'a' has no reference: decode again"):
        group_errors(one)


def test_recordings_are_drawn_where_the_interval_draws_them(tmp_path: Path) -> None:
    manifest = write_strings(tmp_path, {"a": ["one", "two", "one"], "b": ["two", "two"]})
    facts: dict[str, object] = {"wer_ci95_over": "recordings", "manifest": str(manifest)}
    texts = {"a": ("one two one", "one ten one nine"), "b": ("two two", "ten two")}
    decoded = write_decoding(tmp_path / "1", texts, **facts)
    assert counts(group_errors(decoded)) == {"rec-one": (1, 2), "rec-two": (2, 3)}, "the insertion is that of the word before it"
    assert group_errors(decoded)["rec-two"].said == {("a", "two"), ("b", "two two")}
    assert counts(group_errors(write_decoding(tmp_path / "2", texts))) == {"a": (2, 3), "b": (1, 2)}
    results = make_results(read_hypotheses(decoded / "hyps.jsonl"), list(read_cuts(manifest)), manifest, {})
    assert results["wer_ci95_over"] == "recordings"
    errors, words = zip(*counts(group_errors(decoded)).values(), strict=True)
    assert results["wer_ci95"] == bootstrap_wer(errors, words), "the same groups"
    write_strings(tmp_path, {"a": ["one", "two", "two"], "b": ["two", "two"]})
    with pytest.raises(InputError, match="is another than the one that was decoded, such as in 'a': decode again"):
        group_errors(decoded)
    manifest.unlink()
    with pytest.raises(InputError, match=r"recordings are drawn, which .*strings\.jsonl\.gz names, and that is gone"):
        group_errors(decoded)


def test_an_insertion_where_nothing_was_said_is_an_error_of_one_system(tmp_path: Path) -> None:
    one = group_errors(write_decoding(tmp_path / "1", {"a": ("", "one"), "b": ("two", "two")}))
    two = group_errors(write_decoding(tmp_path / "2", {"a": ("", ""), "b": ("two", "two")}))
    assert counts(one) == {"a": (1, 0), "b": (0, 1)} and counts(two) == {"a": (0, 0), "b": (0, 1)}
    assert compare(one, two).difference == 100.0


def test_as_many_words_that_are_others_are_not_compared(tmp_path: Path) -> None:
    one = group_errors(write_decoding(tmp_path / "1", {"a": ("one two", "one"), "b": ("six", "six")}))
    two = group_errors(write_decoding(tmp_path / "2", {"a": ("one ten", "one"), "b": ("six", "six")}))
    with pytest.raises(InputError, match=r"not the same in both for 1 .* such as 'a': compare decodings of one manifest"):
        compare(one, two)
    with pytest.raises(InputError, match="such as 'a'"):
        mix_errors([one, two], [0.5, 0.5])


def write_speakers(folder: Path, speakers: dict[str, str], said: str = "one") -> dict[str, object]:
    """A manifest of utterances of one text by these speakers; what results know of it."""
    cuts = []
    for name, speaker in speakers.items():
        cut = silent_cut(folder, name, 0.5, said)
        cut.supervisions[0].speaker = speaker
        cuts.append(cut)
    write_cuts(cuts, folder / "said.jsonl.gz")
    return {"manifest": str(folder / "said.jsonl.gz")}


def test_speakers_are_drawn_whole(tmp_path: Path) -> None:
    speakers = {f"{speaker}{n}": speaker for n in range(4) for speaker in ("ada", "bo", "cy", "dee")}
    facts = write_speakers(tmp_path, speakers)
    # Each system errs in all that two of the speakers say, so the utterances tell no more than four speakers do.
    one = write_decoding(tmp_path / "1", {name: ("one", "one" if who in ("ada", "bo") else "") for name, who in speakers.items()}, **facts)
    two = write_decoding(tmp_path / "2", {name: ("one", "one" if who in ("ada", "cy") else "") for name, who in speakers.items()}, **facts)
    assert counts(group_errors(one, "speaker")) == {"ada": (0, 4), "bo": (0, 4), "cy": (4, 4), "dee": (4, 4)}
    by_speaker = compare(group_errors(one, "speaker"), group_errors(two, "speaker"))
    by_utterance = compare(group_errors(one), group_errors(two))
    assert by_speaker.difference == by_utterance.difference == 0.0
    assert by_speaker.high - by_speaker.low > 1.5 * (by_utterance.high - by_utterance.low)
    assert list(group_errors(one)) == list(speakers), "by default utterances are drawn"


def test_an_insertion_where_a_speaker_said_nothing_is_that_speakers(tmp_path: Path) -> None:
    facts = write_speakers(tmp_path, {"a": "ada", "b": "bo"}, said="")
    decoded = write_decoding(tmp_path / "1", {"a": ("", "one"), "b": ("", "")}, **facts)
    assert counts(group_errors(decoded, "speaker")) == {"ada": (1, 0), "bo": (0, 0)}


def test_speakers_that_cannot_be_drawn(tmp_path: Path) -> None:
    facts = write_speakers(tmp_path, {"a": "ada", "b": ""})
    decoded = write_decoding(tmp_path / "1", {"a": ("one", "one"), "b": ("one", "one")}, **facts)
    with pytest.raises(InputError, match="does not say who speaks in 'b': name all speakers there, or draw utterances"):
        group_errors(decoded, "speaker")
    write_speakers(tmp_path, {"a": "ada", "b": "ada"})
    with pytest.raises(InputError, match="one speaker says all that was decoded"):
        group_errors(decoded, "speaker")
    (tmp_path / "said.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"speakers are drawn, which .*said\.jsonl\.gz names, and that is gone"):
        group_errors(decoded, "speaker")
