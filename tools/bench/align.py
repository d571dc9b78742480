#!/usr/bin/env python3
"""Forced alignment: the k2 and the torch backend against a loop of torchaudio.functional.forced_align.

    tools/bench/align.py --json align.json

32 utterances of 15 s each at once (random CTC scores of frames of 40 ms, 60 tokens of 1,000). That all paths say the tokens, and that none
is worse than forced_align's, is asserted; where the latter is worse than the others', it is counted.
k2 has no row where it is not installed: tools/install_k2.sh.
"""

import argparse
from collections.abc import Callable
from typing import Any

import _measure
import torch
from torch import Tensor
from torchaudio.functional import forced_align

from reallm.aligners.backend import find_backend
from reallm.aligners.path import pad_tokens
from reallm.errors import InputError, at_least

SIZES = {"80m": (32, 375, 60, 1000), "tiny": (4, 30, 5, 20)}  # utterances, frames, tokens of each, vocabulary without BLANK


def main() -> None:
    _measure.run(_measure.parser(__doc__, repeats=5), bench)


@torch.inference_mode()
def bench(arguments: argparse.Namespace, report: _measure.Report) -> None:
    """Measure."""
    utterances, frames, count, vocabulary = SIZES[arguments.config]
    at_least(1, utterances=utterances)
    scores = torch.randn(utterances, frames, vocabulary + 1, device=arguments.device).mul_(3).log_softmax(-1)
    lens = torch.full((utterances,), frames)
    tokens, token_lens = pad_tokens(list(torch.randint(vocabulary, (utterances, count))))
    sides: dict[str, Callable[[], Tensor]] = {}
    for name in ("torch", "k2"):
        try:
            engine = find_backend(name)
        except InputError as error:
            report.note(**{name: f"not measured: {error}"})
            continue
        sides[f"{name} {engine.version}"] = lambda e=engine: e.labels(scores, lens, tokens, token_lens)
    sides["forced_align"] = lambda: one_by_one(scores, lens, tokens, token_lens)
    paths = {name: align() for name, align in sides.items()}
    found = {name: score_of(scores, path) for name, path in paths.items()}
    for name, score in found.items():
        if not says(paths[name], tokens, vocabulary):
            raise InputError(f"the paths of {name} do not say the tokens")
        if not bool((score >= found["forced_align"] - 1e-5 * found["forced_align"].abs()).all()):
            raise InputError(f"the paths of {name} are worse than those of forced_align: {score}, {found['forced_align']}")
    best = torch.stack(list(found.values())).amax(0)
    report.note(worse_paths_of_forced_align=int((found["forced_align"] < best - 1e-5 * best.abs()).sum()))
    timer, seconds = _measure.Timer.of(arguments), float(lens.sum()) * 0.04
    turns = _measure.alternate({name: lambda a=align: timer(a) for name, align in sides.items()}, arguments.repeats)
    taken = {name: _measure.Spread.of(turns[name], 1000) for name in sides}
    loop = taken["forced_align"].median
    for name, spread in taken.items():
        report.row(side=name, ms=spread, audio_seconds_a_second=1000 * seconds / spread.median, ratio=spread.median / loop)


def one_by_one(scores: Tensor, lens: Tensor, tokens: Tensor, token_lens: Tensor) -> Tensor:
    """Labels (B, N), -1 after the end."""
    labels = torch.full(scores.shape[:2], -1)
    for row, (size, count) in enumerate(zip(lens.tolist(), token_lens.tolist(), strict=True)):
        targets: Any = tokens[row : row + 1, :count].to(scores.device)
        path, _ = forced_align(scores[row : row + 1, :size].contiguous(), targets, blank=scores.size(2) - 1)
        labels[row, :size] = path[0]
    return labels


def says(labels: Tensor, tokens: Tensor, blank: int) -> bool:
    """Whether each path (B, N) says its tokens (B, U): repeats are one, and BLANK is nothing."""
    for path, said in zip(labels.tolist(), tokens.tolist(), strict=True):
        if [label for label, before in zip(path, [blank, *path], strict=False) if label not in (before, blank)] != said:
            return False
    return True


def score_of(scores: Tensor, labels: Tensor) -> Tensor:
    """(B,), the log-probability of each path."""
    labels = labels.to(scores.device)
    return scores.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2).double().masked_fill(labels < 0, 0).sum(1)


if __name__ == "__main__":
    main()
