"""Chunked attention against a plain loop over frames, with rotary positions as complex numbers."""

import pytest
import torch

from reallm.layers.chunk_layout import chunks_of, layout, step_layout
from reallm.layers.chunked_attention import ChunkedAttention
from reallm.protocols import ChunkSpec
from reallm.streaming.context import length_mask
from reallm.streaming.state import tensors

DIM, HEADS = 8, 2
WIDTH = DIM // HEADS


def turned(x: torch.Tensor, position: int) -> torch.Tensor:
    """x (H, E) as E / 2 complex numbers, turned by position · 10000^(-2i / E)."""
    a, b = x.chunk(2, dim=-1)
    frequency = 10000.0 ** (-torch.arange(WIDTH // 2).double() * 2 / WIDTH)
    return torch.complex(a, b) * torch.polar(torch.ones_like(frequency), position * frequency)


def attended(layer: ChunkedAttention, x: torch.Tensor, at: int, keys: list[int]) -> torch.Tensor:
    """What frame ``at`` of x (N, D) makes of the frames ``keys``."""
    query, key, value = (t.unflatten(1, (HEADS, WIDTH)) for t in layer.in_proj(layer.norm(x)).chunk(3, dim=-1))
    scores = torch.stack([(turned(query[at], at) * turned(key[k], k).conj()).real.sum(-1) for k in keys], dim=-1) / WIDTH**0.5
    return layer.out_proj(torch.einsum("hk,khe->he", scores.softmax(-1), value[keys]).flatten())


@pytest.mark.parametrize(
    ("spec", "group"), [(ChunkSpec(4, 3, 2), 1), (ChunkSpec(4, 3), 1), (ChunkSpec(2, 5), 3), (ChunkSpec(3, 0, 3), 1), (ChunkSpec(20, 0), 1)]
)
def test_equals_a_loop_over_frames(spec, group):
    torch.manual_seed(0)
    layer = ChunkedAttention(DIM, HEADS).double().eval()
    lens, frames = torch.tensor([11, 7]), 11
    x = torch.randn(2, frames, DIM).double()
    chunks = -(-(frames + spec.right) // spec.size)
    valid = chunks_of(length_mask(lens, frames), spec, chunks)
    at = layout(spec, valid, torch.zeros(2, spec.left, dtype=torch.bool), group)
    assert (at.mask.size(2) == 1) == (spec.size >= frames), "full context needs no mask for each query"
    out, _ = layer(chunks_of(x, spec, chunks), layer.init_context(2, spec.left, "cpu", torch.float64), at)
    main = out[:, :, : spec.size].flatten(1, 2)[:, spec.right :]
    for row, length in enumerate(lens.tolist()):
        for frame in range(length):
            start = (frame + spec.right) // spec.size * spec.size - spec.right
            keys = [k for k in range(start - spec.left, start + spec.size + spec.right) if 0 <= k < length]
            torch.testing.assert_close(main[row, frame], attended(layer, x[row], frame, keys), atol=1e-9, rtol=0)


@pytest.mark.parametrize("spec", [ChunkSpec(4, 3, 2), ChunkSpec(4, 3), ChunkSpec(3, 0, 3), ChunkSpec(5, 0)])
def test_a_step_is_the_layout_of_one_chunk(spec):
    torch.manual_seed(0)
    layer = ChunkedAttention(DIM, HEADS).double().eval()
    x, valid = torch.randn(3, spec.size + spec.right, DIM).double(), torch.rand(3, spec.size + spec.right) < 0.7
    context = layer.init_context(3, spec.left, "cpu", torch.float64)
    context.keys, context.values = torch.randn_like(context.keys), torch.randn_like(context.values)
    left_valid = torch.rand(3, spec.left) < 0.7
    expected, expected_context = layer(x.unsqueeze(1), context, layout(spec, valid.unsqueeze(1), left_valid))
    at, next_valid = step_layout(spec, valid, left_valid)
    found, found_context = layer.step(x, context, at)
    torch.testing.assert_close(found[valid], expected.squeeze(1)[valid], atol=1e-12, rtol=0)
    for one, other in zip(tensors(found_context), tensors(expected_context), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(next_valid, torch.cat([left_valid, valid[:, : spec.size]], dim=1)[:, spec.size :])


def test_look_ahead_copies_cannot_be_grouped():
    valid = torch.ones(1, 2, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match="groups of 2"):
        layout(ChunkSpec(4, 0, 2), valid, torch.zeros(1, 0, dtype=torch.bool), group=2)


@pytest.mark.parametrize("left", [0, 2])
def test_an_empty_row_gives_no_nan(left):
    layer = ChunkedAttention(DIM, HEADS)
    at = layout(ChunkSpec(3, left), torch.zeros(1, 1, 3, dtype=torch.bool), torch.zeros(1, left, dtype=torch.bool))
    out, _ = layer(torch.zeros(1, 1, 3, DIM), layer.init_context(1, left, "cpu", torch.float32), at)
    assert out.isfinite().all()


def test_layers_share_their_angles_and_steps_too(monkeypatch):
    from reallm.encoders.conformer import ConformerEncoder
    from reallm.layers import chunked_attention

    asked = []
    make = chunked_attention.rotary_angles
    monkeypatch.setattr(chunked_attention, "rotary_angles", lambda *given, **named: asked.append(given) or make(*given, **named))
    encoder = ConformerEncoder(input_dim=8, dim=16, layers=3, heads=2, hidden=24, kernel=3, left=31).eval()
    encoder(torch.randn(1, 96, 8), torch.tensor([96]), encoder.chunk)
    assert len(asked) == 2, "of the chunks, and of what lies left of them"
    state = encoder.init_state(1)
    for _ in range(2):
        _, _, state = encoder.step(torch.randn(1, 32, 8), torch.tensor([32]), torch.tensor([False]), state)
    assert len(asked) == 3
