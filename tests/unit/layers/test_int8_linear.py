"""Linear layers of integers: near the ones they were made from, and no row knows of its neighbours."""

import pytest
import torch
from torch import nn

from reallm.errors import InputError
from reallm.layers.int8_linear import Int8Linear, with_int8_weights
from reallm.systems.speech_reallm import SpeechReaLLM


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_is_near_the_layer_it_was_made_from(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias)
    linear.weight[3] *= 100  # an output's scale is its own
    x = torch.randn(2, 5, 96)
    x[1] *= 1000  # and a row's is its own
    x[0, 0] = 0
    expected, got = linear(x), Int8Linear(linear)(x)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    wrong = (got - expected).abs() / linear.weight.norm(dim=1) / x.norm(dim=2, keepdim=True).clamp(min=1)
    assert 1e-5 < float(wrong.max()) < 0.004  # of rounding to 1 in 127 on both sides: it adds up as a random walk does


@torch.no_grad()
def test_rows_are_equal_to_the_bit_whatever_shares_their_batch() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 33))
    x = torch.randn(17, 64)
    together = layer(x)
    for rows in (1, 2, 5):
        for row in range(0, 17, rows):
            assert torch.equal(layer(x[row : row + rows]), together[row : row + rows])


@torch.no_grad()
def test_all_linear_layers_of_a_system_and_nothing_else() -> None:
    system = SpeechReaLLM.tiny().eval()
    layers = sum(type(part) is nn.Linear for part in system.modules())
    others = {name: value.clone() for name, value in system.state_dict().items() if "norm" in name}
    assert with_int8_weights(system) is system
    assert sum(isinstance(part, Int8Linear) for part in system.modules()) == layers > 10
    assert not any(type(part) is nn.Linear for part in system.modules())
    assert all(torch.equal(system.state_dict()[name], value) for name, value in others.items())
    emission = system.recognize(0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    assert emission.token_ids.size(0) == 1


def test_another_device() -> None:
    with pytest.raises(InputError, match="int8 weights on 'meta'"):
        Int8Linear(nn.Linear(4, 4, device="meta"))


def test_nothing_to_replace() -> None:
    with pytest.raises(InputError, match="a LayerNorm has no linear layers"):
        with_int8_weights(nn.LayerNorm(4))
