"""Values of a wrong type are named with their key and the fix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from reallm.config import check
from reallm.errors import InputError
from reallm.protocols import ChunkSpec, Encoder


@dataclass
class Arguments:
    """One argument of each sort."""

    whole: int = 1
    number: float = 0.5
    rate: float | torch.Tensor = 0.5
    switch: bool = True
    text: str = ""
    path: Path | str = ""
    maybe: int | None = None
    reach: Literal["causal", "chunk"] = "causal"
    sizes: Sequence[int] = ()
    pair: tuple[float, float] = (0.9, 0.98)
    widths: Mapping[str, int] | None = None
    encoder: Encoder | None = None
    chunks: Sequence[ChunkSpec | None] | None = None


def problems(tmp_path: Path, argument: str, value: str) -> list[str]:
    conf = tmp_path / "conf.yaml"
    conf.write_text(f"!new:{__name__}.Arguments\n{argument}: {value}\n")
    return [str(problem).removeprefix(f"{conf}: ") for problem in check(conf)]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("whole", "'5'", "the text '5' is not a whole number: write 5, without quotes"),
        ("whole", "five", "the text 'five' is not a whole number"),
        ("whole", "5.0", "5.0 is not a whole number: write 5"),
        ("whole", "0.5", "0.5 is not a whole number"),
        ("whole", "true", "true is not a whole number"),
        ("whole", "null", "null is not a whole number"),
        ("number", "'1e-3'", "the text '1e-3' is not a number: write 0.001, without quotes"),
        ("number", "1,5", "the text '1,5' is not a number"),
        ("rate", "fast", "the text 'fast' is not a number"),
        ("switch", "yes", "the text 'yes' is not true or false: write true"),
        ("switch", "1", "1 is not true or false"),
        ("text", "1", "1 is not text"),
        ("path", "1", "1 is not a path or text"),
        ("maybe", "some", "the text 'some' is not a whole number"),
        ("reach", "casual", "the text 'casual' is not one of causal, chunk (did you mean 'causal'?)"),
        ("sizes", "4", "4 is not a list, each a whole number: write [4]"),
        ("sizes", "[4, many]", "[4, many] is not a list, each a whole number"),
        ("pair", "[0.9]", "[0.9] is not a list of 2, each a number"),
        ("widths", "{a: wide}", "{a: wide} is not a mapping whose values are each a whole number"),
        ("encoder", "conformer", "the text 'conformer' is not of the type Encoder (write !new: or !include:)"),
        ("chunks", "[8]", "[8] is not a list, each of the type ChunkSpec (write !new: or !include:)"),
    ],
)
def test_a_wrong_type(tmp_path: Path, argument: str, value: str, message: str) -> None:
    assert problems(tmp_path, argument, value) == [f"{argument}: {message}"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("whole", "5"),
        ("whole", "&all 5"),
        ("number", "5"),
        ("number", "1e-3"),
        ("number", ".inf"),
        ("rate", "1.0e-3"),
        ("switch", "&all true"),
        ("text", "'5'"),
        ("path", "a/b"),
        ("maybe", "null"),
        ("reach", "chunk"),
        ("sizes", "[]"),
        ("sizes", "[4, 5]"),
        ("pair", "[1, 0.5]"),
        ("widths", "{a: 1}"),
        ("encoder", "null"),
        ("encoder", "!new:reallm.encoders.lstm.LSTMEncoder {input_dim: 8}"),
        ("chunks", "[null, !new:reallm.protocols.ChunkSpec {size: 4, left: 8}]"),
        ("whole", "!PLACEHOLDER"),
    ],
)
def test_a_right_type(tmp_path: Path, argument: str, value: str) -> None:
    assert problems(tmp_path, argument, value) == []


def test_a_component_of_another_kind_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, "encoder", "!new:reallm.encoders.lstm.LSTMEncoder {input_dim: 16}") == []
    (found,) = problems(tmp_path, "encoder", "!new:reallm.decoders.lstm.LSTMDecoder {vocab_size: 16}")
    assert found.startswith("encoder: reallm.decoders.lstm.LSTMDecoder is of the kind decoder, not encoder: `reallm components encoder`")


def test_what_is_no_mapping_is_no_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "text.yaml"
    conf.write_text("a note\n")
    assert [str(problem) for problem in check(conf)] == [
        f"{conf}: holds no keys: a configuration is a mapping, such as `seed: 1`, or begins with a tag"
    ]
    with pytest.raises(InputError, match="a folder: name a file in it"):
        check(tmp_path)
