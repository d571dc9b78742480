#!/usr/bin/env python3
"""Error rates against the texts of other utterances, to see how far a system is from them: chance_wer.py FILE_OR_FOLDER…

Each decoding is scored once more, every hypothesis against the reference of another utterance, the nearest in number of words that is
another text. A model that says such texts and does not listen, or hears other recordings, is at that error rate; one that says nothing
or the same few words at 95 to 100 %. Folders are searched for results.json, whose normalization is used.
"""

import argparse
from pathlib import Path

from results_table import Parser, fail, files_of, no_environment, read_results

try:
    from reallm.errors import InputError
    from reallm.metrics.hypotheses import Recognized, read_hypotheses
    from reallm.metrics.normalize import normalized
    from reallm.metrics.references import Reference
    from reallm.metrics.word_errors import ErrorCounts, align_words
except ModuleNotFoundError as missing:
    no_environment(missing)


def chance(folder: Path, normalization: str) -> float:
    """The error rate in percent against other utterances' references.

    Raises InputError where the hypotheses are missing or hold no references, and where no two of these differ.
    """
    recognized = read_hypotheses(folder / "hyps.jsonl")
    without = next((utterance.id for utterance in recognized if utterance.ref is None), None)
    if without is not None:
        raise InputError(f"{folder / 'hyps.jsonl'}: utterance '{without}' has no reference: decode again")
    said = {u.id: Reference(u.id, words := (u.ref or "").split(), [], u.seconds, recordings=[u.id] * len(words)) for u in recognized}
    recognized, said = normalized(normalization, recognized, said)
    spoken = sorted((utterance for utterance in recognized if said[utterance.id].words), key=lambda u: (len(said[u.id].words), u.id))
    counts = ErrorCounts()
    for at, utterance in enumerate(spoken):
        counts.add(align_words(_other(spoken, said, at, folder), [word.word for word in utterance.words]))
    if counts.wer is None:
        raise InputError(f"{folder}: none of its references has a word: there is nothing to score")
    return counts.wer


def _other(spoken: list[Recognized], said: dict[str, Reference], at: int, folder: Path) -> list[str]:
    """The words nearest in number to those of ``spoken[at]``, in which ``spoken`` is ordered, that are another text."""
    own = said[spoken[at].id].words
    # The same sentence read by someone else is not another one.
    below = next((words for u in reversed(spoken[:at]) if (words := said[u.id].words) != own), None)
    above = next((words for u in spoken[at + 1 :] if (words := said[u.id].words) != own), None)
    found = [words for words in (above, below) if words is not None]
    if not found:
        raise InputError(f"{folder}: all of its {len(spoken)} references are the same text: there is none to score against instead")
    return min(found, key=lambda words: abs(len(words) - len(own)))


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="results.json, or folders with some")
    rows = []
    for file in files_of(parser.parse_args().results):
        results = read_results(file)
        try:
            by_chance = chance(file.parent, results.get("normalization", "none"))
        except InputError as error:
            fail(error)
        rows.append(f"| {file.parent} | {results['wer']:.2f} | {by_chance:.2f} |")
    print("| experiment | WER % | WER % against other utterances' texts |\n|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
