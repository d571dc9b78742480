"""Compares two alignments of one manifest, such as those of two backends: ``python -m reallm.aligners.compare A B``."""

import json
import sys
from pathlib import Path
from typing import Any

from reallm.errors import InputError

TOLERANCE = 1e-6  # relative, of the score of a path


def compare(first: Path, second: Path) -> dict[str, Any]:
    """How far two aligned manifests are from one another.

    Returns the number of ``utterances``; ``largest_score_difference``, relative; ``different_paths``, utterances whose token
    times differ although the scores agree (ties: several paths are best), and ``different_scores``, the ids of those whose
    scores differ by more than 1e-6.

    Raises InputError when the manifests do not hold the same utterances with the same tokens, or no alignments.
    """
    import torch

    from reallm.data.alignments import token_alignment
    from reallm.data.cuts import read_cuts

    one, two = ({cut.id: cut for cut in read_cuts(path)} for path in (first, second))
    if one.keys() != two.keys():
        stranger = sorted(one.keys() ^ two.keys())[0]
        raise InputError(f"'{stranger}' is in one of {first} and {second} only: compare alignments of one manifest")
    largest, ties, others = 0.0, [], []
    for name, cut in one.items():
        rate = int(cut.sampling_rate)
        a, b = token_alignment(cut, rate), token_alignment(two[name], rate)
        if a is None or b is None or not torch.equal(a.token_ids, b.token_ids):
            raise InputError(f"'{name}' has not the same tokens aligned in {first} and {second}: align both with one tokenizer")
        difference = abs(a.score - b.score) / max(abs(a.score), abs(b.score), 1e-12)
        largest = max(largest, difference)
        if difference > TOLERANCE:
            others.append(name)
        elif not (torch.equal(a.start_samples, b.start_samples) and torch.equal(a.end_samples, b.end_samples)):
            ties.append(name)
    return {"utterances": len(one), "largest_score_difference": largest, "different_paths": ties, "different_scores": others}


def main(arguments: list[str]) -> int:
    """Print the comparison as JSON; 0 when all scores agree, 1 when some do not, 2 for bad input."""
    try:
        if len(arguments) != 2:
            raise InputError("python -m reallm.aligners.compare needs two manifests that `reallm align` wrote")
        result = compare(Path(arguments[0]), Path(arguments[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 1 if result["different_scores"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
