"""The stepping LSTM against PyTorch's own."""

import torch

from reallm.layers.lstm import SteppingLSTM


@torch.no_grad()
def test_steps_equal_the_parallel_pass_without_dropout_in_rows_that_rest() -> None:
    torch.manual_seed(0)
    lstm = SteppingLSTM(6, layers=3, dropout=0.5).double()
    inputs = torch.randn(4, 9, 6, dtype=torch.float64)
    expected = lstm.eval()(inputs)[0]
    lstm.train()  # the steps of a search drop nothing
    state, heard = lstm.init_state(4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    rows, steps = torch.arange(4), torch.zeros_like(inputs)
    while bool((heard < 9).any()):
        active = (torch.rand(4) > 0.4) & (heard < 9)
        before = (state.hidden, state.cell)
        output, state = lstm.step(inputs[rows, heard.clamp(max=8)], active, state)
        assert torch.equal(state.hidden[~active], before[0][~active]) and torch.equal(state.cell[~active], before[1][~active])
        steps[rows[active], heard[active]] = output[active]
        heard = heard + active
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-12)
