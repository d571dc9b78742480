"""RNN-T forced alignment against brute force, and one backend against the other."""

import itertools
from typing import Any

import pytest
import torch

from reallm.aligners.rnnt import RNNTAligner, RNNTPath, align_lattice
from reallm.errors import InputError
from reallm.protocols import Aligner, AlignmentFailure
from reallm.registry import find
from reallm.types import Batch


def random_lattice(seed: int, rows: int, size: int, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, size, most + 1, 3, generator=generator).mul(3).log_softmax(-1)
    return scores[..., 0], scores[:, :, :most, 1]


def brute_force(blank: torch.Tensor, token: torch.Tensor) -> tuple[float, list[int]]:
    """The best of all ways to say U tokens, in order, in N frames."""
    size, most = token.shape
    blank, token = blank.double(), token.double()

    def score(frames: tuple[int, ...]) -> float:
        said = sum(float(token[t, u]) for u, t in enumerate(frames))
        return said + sum(float(blank[t, sum(f <= t for f in frames)]) for t in range(size))

    best = max(itertools.combinations_with_replacement(range(size), most), key=score)
    return score(best), list(best)


@pytest.fixture(params=["torch", pytest.param("k2", marks=pytest.mark.k2)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_is_an_aligner() -> None:
    assert isinstance(RNNTAligner.tiny(), Aligner)


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force(backend: str, seed: int) -> None:
    blank, token = random_lattice(seed, 9, 6, 5)
    lens, token_lens = torch.tensor([6, 6, 1, 1, 5, 2, 3, 6, 4]), torch.tensor([5, 1, 1, 5, 4, 3, 5, 2, 3])
    blank, token = (scores.masked_fill(torch.arange(6).view(1, 6, 1) >= lens.view(-1, 1, 1), torch.nan) for scores in (blank, token))
    for row, path in enumerate(align_lattice(blank, token, lens, token_lens, backend)):
        n, u = int(lens[row]), int(token_lens[row])
        score, frames = brute_force(blank[row, :n, : u + 1], token[row, :n, :u])
        assert isinstance(path, RNNTPath)
        assert path.score == pytest.approx(score, rel=1e-12)
        assert path.begin_frames.tolist() == frames
        assert path.scores.tolist() == [token[row, t, k].double().item() for k, t in enumerate(frames)]


@pytest.mark.k2
@pytest.mark.parametrize("seed", range(3))
def test_k2_equals_torch(seed: int) -> None:
    blank, token = random_lattice(seed, 12, 90, 40)
    generator = torch.Generator().manual_seed(seed)
    lens, token_lens = torch.randint(30, 91, (12,), generator=generator), torch.randint(1, 41, (12,), generator=generator)
    both = [align_lattice(blank, token, lens, token_lens, name) for name in ("torch", "k2")]
    for ours, theirs in zip(*both, strict=True):
        assert isinstance(ours, RNNTPath) and isinstance(theirs, RNNTPath)
        assert ours.score == pytest.approx(theirs.score, rel=1e-6)
        assert ours.begin_frames.tolist() == theirs.begin_frames.tolist()


@pytest.mark.k2
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_k2_equals_torch_where_much_is_impossible(share: float) -> None:
    blank, token = random_lattice(1, 32, 12, 4)
    generator = torch.Generator().manual_seed(2)
    for scores in (blank, token):
        scores[torch.rand(scores.shape, generator=generator) < share] = -torch.inf
    lens, token_lens = torch.full((32,), 12), torch.full((32,), 4)
    both = [align_lattice(blank, token, lens, token_lens, name) for name in ("torch", "k2")]
    scores = [[p.score if isinstance(p, RNNTPath) else p.reason for p in paths] for paths in both]
    assert scores[0] == scores[1]


def test_among_equal_paths_tokens_come_early() -> None:
    (path,) = align_lattice(torch.zeros(1, 4, 3), torch.zeros(1, 4, 2), torch.tensor([4]), torch.tensor([2]), "torch")
    assert isinstance(path, RNNTPath) and path.begin_frames.tolist() == [0, 0]


def test_failures_name_their_reason(backend: str) -> None:
    blank, token = random_lattice(0, 6, 5, 2)
    blank[2, 1, 1] = torch.nan
    token[3, :, 1] = -torch.inf
    blank[4, 4] = token[4, 4] = torch.nan  # beyond its length
    blank[5, :, 2] = torch.nan  # beyond its tokens
    paths = align_lattice(blank, token, torch.tensor([5, 0, 5, 5, 4, 5]), torch.tensor([0, 2, 2, 2, 2, 1]), backend)
    assert [p.reason if isinstance(p, AlignmentFailure) else "" for p in paths] == [
        "empty transcript",
        "too short: no frames",
        "the teacher's scores hold NaN",
        "no path has a probability above zero",
        "",
        "",
    ]


def test_all_rows_failing_is_no_crash() -> None:
    paths = align_lattice(*random_lattice(0, 2, 3, 1), torch.tensor([0, 3]), torch.tensor([1, 0]), "torch")
    assert all(isinstance(path, AlignmentFailure) for path in paths)


def test_searches_in_double() -> None:
    blank, token = torch.full((1, 52, 2), -1000.0), torch.full((1, 52, 1), -torch.inf)
    blank[0, 50:] = 0.0
    token[0, 50:, 0] = torch.tensor([-0.0002, -0.0001])  # nothing beside the 50,000 of the frames before, in float32
    (path,) = align_lattice(blank, token, torch.tensor([52]), torch.tensor([1]), "torch")
    assert isinstance(path, RNNTPath) and path.begin_frames.tolist() == [51]
    assert path.score == pytest.approx(-50_000.0001, rel=1e-12)


class TeacherOf:
    """A teacher whose lattice says token u in frame ``frames[u]``."""

    period_samples = 320
    sample_rate = 8000

    def __init__(self, size: int, frames: list[int]) -> None:
        self.tokenizer = find("tokenizer", "character").tiny()
        self.size, self.frames = size, frames

    def lattice_scores(self, batch: Batch, token_ids: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        token = torch.full((1, self.size, len(self.frames)), -9.0)
        for u, t in enumerate(self.frames):
            token[0, t, u] = -0.1
        return torch.full((1, self.size, len(self.frames) + 1), -0.01), token, torch.tensor([self.size])


def test_times_are_samples_within_the_audio() -> None:
    batch = Batch(["a"], torch.zeros(1, 800), torch.tensor([800]), ["xyzq"])
    (alignment,) = RNNTAligner.tiny().align(batch, [torch.arange(4)], TeacherOf(6, [0, 1, 1, 5]))
    assert not isinstance(alignment, AlignmentFailure)
    assert alignment.start_samples.tolist() == [0, 320, 320, 640]
    assert alignment.end_samples.tolist() == [320, 640, 640, 800], "what is said after the audio is in its last frame"
    assert alignment.score == pytest.approx(-0.46)


def test_what_cannot_be_aligned_is_refused() -> None:
    batch = Batch(["a"], torch.zeros(1, 800), torch.tensor([800]), ["x"])
    with pytest.raises(InputError, match="CTC has no lattice to align with: name a trained `transducer` system"):
        RNNTAligner.tiny().align(batch, [torch.tensor([0])], find("system", "ctc").tiny())
    teacher = TeacherOf(6, [0])
    known = teacher.tokenizer.vocab_size
    with pytest.raises(InputError, match=f"token id {known} is not below BLANK = {known}"):
        RNNTAligner.tiny().align(batch, [torch.tensor([known])], teacher)
