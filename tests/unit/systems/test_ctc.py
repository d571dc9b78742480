"""CTC: its best path by the definition, in pieces and at once; its loss against a single-utterance one."""

import itertools

import pytest
import torch

from reallm.systems.ctc import CTC
from reallm.types import Batch


@pytest.fixture
def system() -> CTC:
    torch.manual_seed(0)
    return CTC.tiny().double().eval()


def by_definition(labels: list[int], blank: int) -> list[tuple[int, int]]:
    collapsed, at = [], 0
    for label, run in itertools.groupby(labels):
        if label != blank:
            collapsed.append((label, at))
        at += len(list(run))
    return collapsed


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 0, 4, 3]])
def test_collapse_in_pieces(system: CTC, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (4, 12), generator=generator)
    labels[labels == 2] = system.blank_id
    lens = torch.tensor([12, 7, 1, 0])
    log_probs = torch.nn.functional.one_hot(labels, system.blank_id + 1).double() * 5 - 6
    previous, offset = torch.full((4,), system.blank_id), torch.zeros(4, dtype=torch.int64)
    found: list[list[tuple[int, int]]] = [[] for _ in range(4)]
    at = 0
    for size in sizes:
        now = (lens - at).clamp(0, size)
        emission, previous = system._collapse(log_probs[:, at : at + size], now, previous, offset)
        offset = offset + now
        for b in range(4):
            n = int(emission.lens[b])
            found[b] += zip(emission.token_ids[b, :n].tolist(), emission.frame[b, :n].tolist(), strict=True)
            assert torch.allclose(emission.log_probs[b, :n], torch.tensor(-1.0, dtype=torch.float64))
        at += size
    assert found == [by_definition(labels[b, : lens[b]].tolist(), system.blank_id) for b in range(4)]


def test_the_loss_of_a_batch_is_that_of_its_utterances(system: CTC) -> None:
    wav = torch.randn(2, 8000, generator=torch.Generator().manual_seed(2)).double() * 0.1
    lens = torch.tensor([8000, 5000])
    text = system.tokenizer.decode([0, 1, 2, 1]).strip() or "ab"
    tokens = len(system.tokenizer.encode(text))
    with torch.no_grad():
        both = float(system.loss(Batch(["a", "b"], wav, lens, [text, text]))[0])
        alone = [float(system.loss(Batch(["x"], wav[b : b + 1], lens[b : b + 1], [text]))[0]) for b in range(2)]
    assert both == pytest.approx(sum(alone) * tokens / (2 * tokens), rel=1e-6)
