"""Adapters against PyTorch's own convolution, and what they refuse."""

import pytest
import torch

from reallm.adapters.conv import ConvolutionalAdapter
from reallm.adapters.stack import StackingAdapter
from reallm.errors import InputError


def test_stacking_is_concatenation_and_a_linear_map():
    adapter = StackingAdapter(input_dim=3, output_dim=4, stride=2).double()
    enc = torch.randn(1, 5, 3).double()
    out, lens = adapter(enc, torch.tensor([5]))
    stacked = torch.stack([torch.cat([enc[0, 0], enc[0, 1]]), torch.cat([enc[0, 2], enc[0, 3]]), torch.cat([enc[0, 4], torch.zeros(3)])])
    assert lens.tolist() == [3]
    torch.testing.assert_close(out[0], adapter.window.linear(stacked.double()))


def test_convolution_equals_conv1d():
    adapter = ConvolutionalAdapter(input_dim=3, output_dim=4, stride=2, kernel=5).double()
    enc = torch.randn(2, 6, 3).double()
    weight = adapter.window.linear.weight.unflatten(1, (5, 3)).transpose(1, 2)
    padded = torch.nn.functional.pad(enc.transpose(1, 2), (3, 0))
    expected = torch.nn.functional.conv1d(padded, weight, adapter.window.linear.bias, stride=2).transpose(1, 2)
    torch.testing.assert_close(adapter(enc, torch.tensor([6, 6]))[0], adapter.head(expected))


def test_a_kernel_that_skips_frames_is_refused():
    with pytest.raises(InputError, match="make it 4 or more"):
        ConvolutionalAdapter(input_dim=3, output_dim=4, stride=4, kernel=3)
