"""Speed perturbation of a manifest (Ko et al. 2015): every cut also faster and slower, its alignments with it."""

from collections.abc import Iterable, Iterator, Sequence

from lhotse.cut import Cut

from reallm.errors import InputError

SLOWEST, FASTEST = 0.5, 2.0


def with_speeds(cuts: Iterable[Cut], factors: Sequence[float]) -> Iterator[Cut]:
    """Each cut as it is, then once for each factor, with ``_sp0.9`` at the end of its id.

    lhotse changes the speed when the audio is read. Times of words and tokens follow (reallm/data/alignments.py).

    Raises InputError for a factor that is 1, comes twice, or is not between 0.5 and 2.
    """
    if len({1.0, *factors}) != len(factors) + 1 or not all(SLOWEST <= factor <= FASTEST for factor in factors):
        given = ", ".join(f"{factor:g}" for factor in factors)
        raise InputError(f"speed factors {given}: different ones from {SLOWEST} to {FASTEST:g}, without 1, which is always there")
    for cut in cuts:
        yield cut
        for factor in factors:
            yield cut.perturb_speed(factor)
