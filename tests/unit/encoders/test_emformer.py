"""The Emformer against torchaudio's own, and how streams of different age share it."""

import pytest
import torch
from torch import nn
from torchaudio.models import Emformer

from reallm.encoders.emformer import EmformerEncoder
from reallm.errors import InputError


def pair(right: int) -> tuple[EmformerEncoder, Emformer]:
    """Ours over feature frames that are encoder frames already, and torchaudio's, of the same weights."""
    torch.manual_seed(0)
    theirs = Emformer(16, 2, 24, 3, 4, activation="gelu", left_context_length=5, right_context_length=right).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = EmformerEncoder(16, dim=16, layers=3, heads=2, hidden=24, stride=1, context=0, chunk_size=4, left=5, right=right).eval()
    ours.subsampling.linear.load_state_dict({"weight": torch.eye(16), "bias": torch.zeros(16)})
    ours.embedding = nn.Identity()
    for mine, other in zip(ours.layers, theirs.emformer_layers, strict=True):
        mine.layer.load_state_dict(other.state_dict())
    return ours, theirs


@torch.no_grad()
def test_equals_torchaudio_without_right_context() -> None:
    ours, theirs = pair(right=0)
    x, lens = torch.randn(3, 19, 16), torch.tensor([19, 12, 5])
    expected, _ = theirs(x, lens)
    got, got_lens = ours(x, lens, ours.chunk)
    for row, length in enumerate(got_lens.tolist()):
        torch.testing.assert_close(got[row, :length], expected[row, :length], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_equals_torchaudio_with_right_context() -> None:
    right, size = 2, 4
    ours, theirs = pair(right)
    x = torch.randn(1, 5 * size, 16)
    got, _ = ours(x, torch.tensor([x.size(1)]), ours.chunk)
    # Segments that lie as ours do: torchaudio's get ``right`` frames in front, which nobody may attend to.
    padded = torch.cat([torch.randn(1, right, 16), x], dim=1).transpose(0, 1)
    right_context, utterance = theirs._gen_right_context(padded), padded[:-right]
    mask = theirs._gen_attention_mask(utterance)
    mask[:, right_context.size(0) :][:, :right] = True
    output, memory = utterance, torch.empty(0)
    for layer in theirs.emformer_layers:
        output, right_context, memory = layer(output, torch.tensor([utterance.size(0)]), right_context, memory, mask)
    expected = output[right:, 0]
    torch.testing.assert_close(got[0, : len(expected)], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_of_different_age_share_a_step_where_torchaudio_mixes_them() -> None:
    ours, theirs = pair(right=0)
    x = torch.randn(2, 16, 16)
    full, rest = torch.tensor([4, 4]), torch.tensor([4, 0])
    never = torch.tensor([False, False])
    state = ours.init_state(2)
    _, _, state = ours.step(x[:, :4], rest, never, state)  # row 1 begins one chunk later
    out, _, _ = ours.step(torch.stack([x[0, 4:8], x[1, :4]]), full, never, state)
    alone, _ = theirs(x[1:, :4], torch.tensor([4]))
    torch.testing.assert_close(out[1], alone[0], atol=2e-5, rtol=1e-4)
    older, _ = theirs(x[:1, :8], torch.tensor([8]))
    torch.testing.assert_close(out[0], older[0, 4:], atol=2e-5, rtol=1e-4)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="3 heads of a model of width 16"):
        EmformerEncoder(8, dim=16, heads=3)
    with pytest.raises(InputError, match="activation 'gelo'"):
        EmformerEncoder(8, activation="gelo")  # type: ignore[arg-type]
