"""A size of 0 is refused where a component is built, in one line that names it: layers that are not there would train too."""

import inspect
import re
from typing import Any

import pytest

from reallm.errors import InputError, at_least
from reallm.registry import catalogue, find, spec_of

SIZES = {
    *("sample_rate", "mels", "coefficients", "input_dim", "output_dim", "vocab_size", "dim", "layers", "heads", "hidden", "kernel"),
    *("stride", "decoder_dim", "decoder_layers", "decoder_heads", "decoder_hidden"),
}


def sizes() -> list[Any]:
    found = []
    for kind in ("frontend", "encoder", "adapter", "decoder", "predictor", "system"):
        for name, cls in catalogue(kind).items():
            taken = [size for size in inspect.signature(cls).parameters if size in SIZES and (kind, size) != ("adapter", "hidden")]
            found += [pytest.param(cls, size, id=f"{kind}-{name}-{size}") for size in taken]
    return found


@pytest.mark.parametrize(("cls", "size"), sizes())
def test_a_size_of_0_is_named(cls: Any, size: str) -> None:
    given = spec_of(cls.tiny()).kwargs
    with pytest.raises(InputError, match=rf"^{size} (is )?0\b"):
        cls(**{**given, size: 0})


def test_a_front_end_without_channels() -> None:
    with pytest.raises(InputError, match=r"^channels\[1\] is 0: at least 1$"):
        find("encoder", "speechbrain_conformer")(channels=(4, 0))


def test_the_first_value_below_the_bound_is_named() -> None:
    at_least(1, layers=1, dim=2.5)
    with pytest.raises(InputError, match=re.escape("dim is -1: at least 0")):
        at_least(0, layers=0, dim=-1, heads=-2)
    with pytest.raises(InputError, match="share is nan: at least 0"):
        at_least(0, share=float("nan"))
