"""SpecAugment hides what it says and moves nothing."""

import torch

from reallm.layers.spec_augment import SpecAugment


def test_masks_whole_frames_and_features_and_leaves_the_rest():
    torch.manual_seed(0)
    feats, lens = torch.rand(500, 50, 20) + 1, torch.full((500,), 50)
    out = SpecAugment(time_masks=2, time_width=5, freq_masks=1, freq_width=4)(feats, lens)
    hidden = out == 0
    assert torch.equal(out[~hidden], feats[~hidden])
    frames, features = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, frames.unsqueeze(2) | features.unsqueeze(1))
    assert frames.sum(1).max() <= 10
    assert features.sum(1).max() <= 4
    assert frames.any()
    assert features.any()
    assert frames.float().mean(0).min() > 0  # every frame can be hidden
    assert not torch.equal(frames[0], frames[1])


def test_frames_after_the_end_are_not_what_is_hidden():
    torch.manual_seed(0)
    out = SpecAugment(time_masks=1, time_width=4, freq_masks=0)(torch.ones(200, 30, 3), torch.full((200,), 10))
    assert out[:, 10:].all()
    assert (out[:, :10] == 0).any()


def test_follows_the_global_generator():
    feats, lens = torch.ones(4, 50, 20), torch.full((4,), 50)
    torch.manual_seed(1)
    first = SpecAugment()(feats, lens)
    torch.manual_seed(1)
    assert torch.equal(SpecAugment()(feats, lens), first)
