"""All randomness of a training run is drawn from (seed, position), never from what happened before.

So nothing of a random generator has to be saved, and a run that was killed goes on with the very numbers that the
uninterrupted run would have drawn. A batch's position is its number in the epoch, whichever of several processes takes it:
together they draw what one process would.
"""

import hashlib
import os
import random

import numpy
import torch


def seed_position(seed: int, *position: int | str) -> None:
    """Seed Python's, numpy's and torch's generators from the seed and the position in the run."""
    text = "/".join(str(part) for part in (seed, *position, 0))  # with the closing 0 the published runs were drawn
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    random.seed(number)
    numpy.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)


def use_deterministic_algorithms() -> None:
    """Equal inputs give bit-equal results on one machine, with as many threads as there are cores to use."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms is the same, but imports torch's compiler: 5 seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
