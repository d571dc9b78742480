"""Left context of a chunk, against a plain list of what a stream has heard."""

import pytest
import torch

from reallm.streaming.context import length_mask, mask_padding, push_context


def test_length_mask():
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_mask_padding(shape):
    x = torch.full(shape, float("nan"))
    x[0, :1], x[1, :3] = 1.0, 2.0
    masked = mask_padding(x, torch.tensor([1, 3]))
    assert masked[0].sum() == masked[0, 0].numel()
    assert masked[1].sum() == 2 * masked[1].numel()


@pytest.mark.parametrize("context_size", [0, 1, 3, 7])
@pytest.mark.parametrize("chunk", [1, 4])
def test_context_is_what_came_last(context_size, chunk):
    generator = torch.Generator().manual_seed(0)
    rows = 5
    context = torch.zeros(rows, context_size, 2)
    heard = [torch.zeros(context_size, 2) for _ in range(rows)]
    for _ in range(12):
        x = torch.randn(rows, chunk, 2, generator=generator)
        lens = torch.randint(chunk + 1, (rows,), generator=generator)
        window, context = push_context(context, x, lens)
        for row in range(rows):
            assert torch.equal(window[row, :context_size], heard[row][len(heard[row]) - context_size :])
            assert torch.equal(window[row, context_size:], x[row])
            heard[row] = torch.cat([heard[row], x[row, : lens[row]]])
            assert torch.equal(context[row], heard[row][len(heard[row]) - context_size :])


def test_samples_without_a_width():
    window, context = push_context(torch.zeros(1, 2), torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([2]))
    assert window.tolist() == [[0, 0, 1, 2, 9]]
    assert context.tolist() == [[1, 2]]
