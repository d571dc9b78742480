"""Weights that differ in anything have another fingerprint."""

import torch

from reallm.fingerprints import of_weights


def test_weights_are_told_apart_by_names_types_shapes_and_values() -> None:
    row = torch.arange(6, dtype=torch.float32)
    several = [
        {"a": row},
        {"b": row},
        {"a": row + 1},
        {"a": row.view(2, 3)},
        {"a": row.view(3, 2)},
        {"a": row.view(torch.int32)},
        {"a": row[:3], "b": row[3:]},
        {"a": row[:2], "b": row[2:]},
        {"a": torch.tensor(1)},
        {"a": torch.tensor(1.0)},
        {"a": torch.tensor([])},
        {},
    ]
    assert len({of_weights(weights) for weights in several}) == len(several)
    assert of_weights({"a": row.view(2, 3), "b": row}) == of_weights({"b": row, "a": row.view(3, 2).flatten().view(2, 3)})
