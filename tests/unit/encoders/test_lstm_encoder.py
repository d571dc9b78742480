"""The LSTM encoder beyond its contract: a row may bring any multiple of the stride."""

import torch

from reallm.encoders.lstm import LSTMEncoder


def test_parts_of_a_chunk_stream_too():
    torch.manual_seed(0)
    encoder = LSTMEncoder.tiny().double().eval()
    x, lens = torch.randn(3, 40, 8).double(), torch.tensor([40, 40, 40])
    whole, _ = encoder(x, lens)
    state, position = encoder.init_state(3, dtype=torch.float64), [0, 0, 0]
    for counts in ([4, 8, 0], [0, 4, 12], [12, 0, 8]):
        chunk = torch.full((3, 12, 8), 1e3).double()
        for row, count in enumerate(counts):
            chunk[row, :count] = x[row, position[row] : position[row] + count]
        out, out_lens, state = encoder.step(chunk, torch.tensor(counts), torch.tensor([False] * 3), state)
        assert out_lens.tolist() == [count // 4 for count in counts]
        for row, count in enumerate(counts):
            at = position[row] // 4
            torch.testing.assert_close(out[row, : count // 4], whole[row, at : at + count // 4], atol=1e-9, rtol=0)
            position[row] += count
