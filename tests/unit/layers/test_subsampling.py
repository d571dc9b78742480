"""A strided window equals PyTorch's strided convolution."""

import pytest
import torch

from reallm.layers.subsampling import StridedWindow


@pytest.mark.parametrize(("stride", "context"), [(4, 0), (4, 3), (2, 5), (1, 1)])
def test_equals_conv1d(stride, context):
    window = StridedWindow(3, 5, stride, context).double()
    x, lens = torch.randn(2, 4 * stride, 3).double(), torch.tensor([4 * stride, 4 * stride])
    weight = window.linear.weight.unflatten(1, (stride + context, 3)).transpose(1, 2)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (context, 0))
    expected = torch.nn.functional.conv1d(padded, weight, window.linear.bias, stride=stride).transpose(1, 2)
    torch.testing.assert_close(window(x, lens)[0], expected)
