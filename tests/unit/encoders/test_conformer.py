"""The Conformer beyond its contract: every variant streams, latency, look-ahead, precision, what is refused."""

import pytest
import torch

from reallm.contract.encoder import CHECKS
from reallm.encoders.conformer import ConformerEncoder
from reallm.errors import InputError
from reallm.protocols import ChunkSpec
from reallm.streaming.state import tensors


def variant(**arguments):
    class Variant:
        @classmethod
        def tiny(cls):
            given = {"input_dim": 6, "dim": 8, "layers": 2, "heads": 2, "hidden": 12, "kernel": 3, "dropout": 0.0, "stride": 2}
            return ConformerEncoder(**{**given, **arguments})

    return Variant


VARIANTS = {
    "chunk convolution with look-ahead": variant(convolution="chunk", kernel=5, chunk_size=4, left=3, right=2),
    "chunk convolution without": variant(convolution="chunk", kernel=5, chunk_size=3, left=7),
    "look-ahead of a whole chunk": variant(chunk_size=3, left=4, right=3),
    "kernel longer than chunk and left": variant(kernel=9, chunk_size=2, left=1, context=0),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_keeps_the_contract(name, check):
    check(VARIANTS[name])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ConformerEncoder.tiny().double().eval()


def test_look_ahead_does_not_grow_with_depth(encoder):
    # Two layers, two frames of look-ahead: with look-ahead at every layer the first chunk would see four frames on.
    stride, chunk = encoder.geometry.stride, encoder.chunk
    x, lens = torch.randn(1, 48, 8).double(), torch.tensor([48])
    before, _ = encoder(x, lens, chunk)
    seen = chunk.size * stride  # the first chunk is size - right frames, and sees right more
    x[:, seen:] += 1.0
    after, _ = encoder(x, lens, chunk)
    first = chunk.size - chunk.right
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first : first + 1], after[:, first : first + 1])


def test_each_push_brings_out_what_it_completes(encoder):
    size, right, stride = encoder.chunk.size, encoder.chunk.right, encoder.geometry.stride
    state = encoder.init_state(1, dtype=torch.float64)
    emitted = []
    for number in range(4):
        final = torch.tensor([number == 3])
        _, lens, state = encoder.step(torch.randn(1, size * stride, 8).double(), torch.tensor([size * stride]), final, state)
        emitted.append(int(lens))
    assert emitted == [size - right, size, size, size + right]


def test_an_endless_stream_keeps_its_size_and_precision(encoder):
    # The same window again and again gives the same output, however long ago the stream began.
    x, full = torch.randn(1, 16, 8).double(), torch.tensor([16])
    state = encoder.init_state(1, dtype=torch.float64)
    sizes = [t.shape for t in tensors(state)]
    outputs = []
    for _ in range(120):
        out, _, state = encoder.step(x, full, torch.tensor([False]), state)
        outputs.append(out)
    assert [t.shape for t in tensors(state)] == sizes
    torch.testing.assert_close(outputs[-1], outputs[20], atol=1e-12, rtol=0)


def test_full_context_sees_the_whole_utterance(encoder):
    x, lens = torch.randn(1, 80, 8).double(), torch.tensor([80])
    before, _ = encoder(x, lens)
    x[:, -1] += 1.0
    after, _ = encoder(x, lens)
    assert not torch.equal(before[:, 0], after[:, 0])


def test_many_chunks_share_one_block_without_changing_a_result():
    torch.manual_seed(0)
    grouped = variant(chunk_size=2, left=8)().tiny().double().eval()
    x, lens = torch.randn(2, 61, 6).double(), torch.tensor([61, 40])
    together, _ = grouped(x, lens, ChunkSpec(2, 8))
    state = grouped.init_state(2, dtype=torch.float64)
    pieces = []
    for start in range(0, 40, 4):  # step lays out one chunk a block
        out, _, state = grouped.step(x[:, start : start + 4], torch.tensor([4, 4]), torch.tensor([False, False]), state)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), together[:, :20], atol=1e-9, rtol=0)


def test_trains_under_autocast():
    encoder = ConformerEncoder.tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = encoder(torch.randn(2, 64, 8), torch.tensor([64, 30]), encoder.chunk)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"heads": 3}, "multiple of 6"),
        ({"convolution": "both"}, "one of causal, chunk"),
        ({"convolution": "chunk", "kernel": 4}, "odd"),
        ({"dropout": 1.5}, "from 0 to 0.99"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments, fix):
    with pytest.raises(InputError, match=fix) as refused:
        ConformerEncoder(input_dim=8, dim=16, **arguments)
    assert "\n" not in str(refused.value)
