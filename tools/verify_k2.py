"""Checks k2 by use: a small CTC forced alignment must equal the best of all paths, counted out one by one.

Prints one line and exits 0, else fails. Runs on Python 3.8 too, with no more than torch and k2.
"""

import itertools
import sys

import k2
import torch

FRAMES, SYMBOLS, TOKENS = 6, 4, [2, 1, 1]  # two equal tokens: a blank must stand between them


def collapsed(path):
    """The tokens of a path of symbols: repeats merged, blanks (0) dropped."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


def main():
    torch.manual_seed(0)
    log_probs = torch.randn(FRAMES, SYMBOLS).log_softmax(-1)
    scores = {
        path: sum(log_probs[t, symbol].item() for t, symbol in enumerate(path))
        for path in itertools.product(range(SYMBOLS), repeat=FRAMES)
        if collapsed(path) == TOKENS
    }
    expected = max(scores, key=scores.get)

    graph = k2.ctc_graph([TOKENS])
    dense = k2.DenseFsaVec(log_probs[None], torch.tensor([[0, 0, FRAMES]], dtype=torch.int32))
    lattice = k2.intersect_dense(graph, dense, output_beam=30.0)
    best = k2.shortest_path(lattice, use_double_scores=True)
    path = tuple(label for label in best.labels.tolist() if label != -1)
    total = best.get_tot_scores(use_double_scores=True, log_semiring=False).item()
    if path != expected or abs(total - scores[expected]) > 1e-5:
        sys.exit(f"k2 aligns wrongly: {path} with score {total}, but {expected} has {scores[expected]}")
    version = getattr(k2, "__dev_version__", None) or getattr(k2, "__version__", "unknown")
    print(f"k2 {version} with torch {torch.__version__} in {sys.executable} aligns")


main()
