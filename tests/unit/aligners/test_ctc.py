"""CTC forced alignment against brute force, torchaudio, and the other backend."""

import itertools
import logging

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from reallm.aligners import backend as backends
from reallm.aligners import k2_client
from reallm.aligners.ctc import CTCAligner, align_scores
from reallm.aligners.path import CTCPath
from reallm.errors import InputError
from reallm.protocols import Aligner, AlignmentFailure
from reallm.types import Batch

BLANK = 3


def random_scores(seed: int, rows: int, size: int, vocabulary: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, size, vocabulary, generator=generator).mul(3).log_softmax(-1)


def random_tokens(seed: int, vocabulary: int, counts: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocabulary - 1, (count,), generator=generator) for count in counts]


def brute_force(log_probs: torch.Tensor, tokens: list[int]) -> tuple[float, tuple[int, ...]] | None:
    """The best of all label sequences that collapse to ``tokens``."""
    size, vocabulary = log_probs.shape
    scores = log_probs.double()
    best = None
    for labels in itertools.product(range(vocabulary), repeat=size):
        if [k for k, _ in itertools.groupby(labels) if k != vocabulary - 1] != tokens:
            continue
        score = sum(scores[t, k].item() for t, k in enumerate(labels))
        if best is None or score > best[0]:
            best = (score, labels)
    return best


def test_is_an_aligner():
    assert isinstance(CTCAligner.tiny(), Aligner)


CASES = [[0], [0, 0], [0, 1, 2], [1, 1, 1], [2, 1], [2, 2, 0], [0, 1, 0, 1, 0, 1], [1, 1, 1, 1]]


@pytest.fixture(params=["torch", pytest.param("k2", marks=pytest.mark.k2)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(backend: str, seed: int):
    log_probs = random_scores(seed, len(CASES), 6, 4)
    lens = torch.tensor([6, 3, 5, 6, 4, 6, 6, 6])
    for row, path in enumerate(align_scores(log_probs, lens, [torch.tensor(case) for case in CASES], backend)):
        expected = brute_force(log_probs[row, : lens[row]], CASES[row])
        if expected is None:
            assert isinstance(path, AlignmentFailure)
            continue
        assert path.score == pytest.approx(expected[0], rel=1e-12)
        assert path.labels.tolist() == list(expected[1])


def test_token_spans_and_scores_by_hand():
    labels = [BLANK, 0, 0, BLANK, 0, 1]
    log_probs = torch.full((1, 8, 4), -9.0)
    for t, label in enumerate(labels):
        log_probs[0, t, label] = -0.1 * (t + 1)
    (path,) = align_scores(log_probs, torch.tensor([6]), [torch.tensor([0, 0, 1])], "torch")
    assert path.labels.tolist() == labels
    assert path.begin_frames.tolist() == [1, 4, 5]
    assert path.end_frames.tolist() == [3, 5, 6]
    assert path.scores.tolist() == pytest.approx([-0.5, -0.5, -0.6])
    assert path.score == pytest.approx(-2.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=5))
def test_equals_torchaudio_and_rows_do_not_touch_each_other(seed: int, sizes: list[tuple[int, int]]):
    lens = torch.tensor([size for size, _ in sizes])
    log_probs = random_scores(seed, len(sizes), int(lens.max()) + 2, 6).double()
    tokens = random_tokens(seed, 6, [count for _, count in sizes])
    for row, path in enumerate(align_scores(log_probs, lens, tokens, "torch")):
        single = log_probs[row : row + 1, : lens[row]]
        (alone,) = align_scores(single, lens[row : row + 1], tokens[row : row + 1], "torch")
        if isinstance(path, AlignmentFailure):
            assert alone == path
            with pytest.raises(RuntimeError, match="too long"):
                torchaudio.functional.forced_align(single, tokens[row].unsqueeze(0), blank=5)
            continue
        labels, scores = torchaudio.functional.forced_align(single, tokens[row].unsqueeze(0), blank=5)
        assert path.labels.tolist() == alone.labels.tolist() == labels[0].tolist()
        assert path.score == alone.score == pytest.approx(scores.sum().item(), rel=1e-12)


@pytest.mark.k2
@pytest.mark.parametrize("seed", range(4))
def test_k2_equals_torch(seed: int):
    log_probs = random_scores(seed, 16, 90, 30)
    lens = torch.randint(40, 91, (16,), generator=torch.Generator().manual_seed(seed))
    tokens = random_tokens(seed, 30, [1 + row * 2 for row in range(16)])
    for ours, theirs in zip(align_scores(log_probs, lens, tokens, "torch"), align_scores(log_probs, lens, tokens, "k2"), strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-6)
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.begin_frames.tolist() == theirs.begin_frames.tolist()


def test_failures_name_their_reason(backend: str):
    log_probs = random_scores(0, 6, 5, 4)
    log_probs[2, 1] = torch.nan
    log_probs[3, :, 1] = -torch.inf
    log_probs[4, 4] = torch.nan  # beyond its length
    tokens = [torch.tensor(t, dtype=torch.int64) for t in ([], [0, 0, 1, 1], [0], [0, 1], [2], [0, 1])]
    paths = align_scores(log_probs, torch.tensor([5, 5, 5, 5, 4, 5]), tokens, backend)
    assert [p.reason if isinstance(p, AlignmentFailure) else "" for p in paths] == [
        "empty transcript",
        "too short: 5 frames, its 4 tokens need 6",
        "the teacher's scores hold NaN",
        "no path has a probability above zero",
        "",
        "",
    ]


def test_goes_around_impossible_frames(backend: str):
    log_probs = random_scores(0, 1, 6, 4)
    log_probs[0, :3, 1] = -torch.inf
    log_probs[0, 5, BLANK] = -torch.inf
    (path,) = align_scores(log_probs, torch.tensor([6]), [torch.tensor([0, 1])], backend)
    expected = brute_force(log_probs[0], [0, 1])
    assert isinstance(path, CTCPath) and expected is not None
    assert path.labels.tolist() == list(expected[1])
    assert path.score == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.k2
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_k2_equals_torch_where_much_is_impossible(share: float):
    log_probs = random_scores(1, 64, 20, 6)
    log_probs[torch.rand(log_probs.shape, generator=torch.Generator().manual_seed(2)) < share] = -torch.inf
    lens, tokens = torch.full((64,), 20), random_tokens(3, 6, [4] * 64)
    both = [align_scores(log_probs, lens, tokens, name) for name in ("torch", "k2")]
    scores = [[p.score if isinstance(p, CTCPath) else p.reason for p in paths] for paths in both]
    assert scores[0] == scores[1]


def test_all_rows_failing_is_no_crash():
    paths = align_scores(random_scores(0, 2, 2, 4), torch.tensor([0, 2]), [torch.tensor([1]), torch.tensor([1, 1])], "torch")
    assert all(isinstance(path, AlignmentFailure) for path in paths)


def test_totals_are_double():
    log_probs = random_scores(1, 1, 2000, 5)
    (path,) = align_scores(log_probs, torch.tensor([2000]), random_tokens(1, 5, [200]), "torch")
    exact = log_probs[0].double()[torch.arange(2000), path.labels].sum().item()
    assert path.score == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("best", [50, 51])
def test_searches_in_double(best: int):
    log_probs = torch.full((1, 52, 2), -1000.0)
    log_probs[0, :, 0] = -torch.inf
    log_probs[0, 50:, 0] = -0.0002  # nothing beside the 50,000 of the frames before, in float32
    log_probs[0, best, 0] = -0.0001
    log_probs[0, 50:, 1] = 0.0
    (path,) = align_scores(log_probs, torch.tensor([52]), [torch.tensor([0])], "torch")
    assert path.begin_frames.tolist() == [best]


def test_token_outside_the_labels():
    with pytest.raises(InputError, match="token id 3 is not below BLANK = 3"):
        align_scores(random_scores(0, 1, 4, 4), torch.tensor([4]), [torch.tensor([3])], "torch")


class TeacherOf:
    """A teacher whose scores are given."""

    period_samples = 320
    sample_rate = 8000

    def __init__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> None:
        self.log_probs = lambda batch: (log_probs, lens)


def test_times_are_samples_within_the_audio():
    log_probs = torch.full((1, 3, 4), -9.0)
    for t, label in enumerate([BLANK, 0, 1]):
        log_probs[0, t, label] = -0.1
    batch = Batch(["a"], torch.zeros(1, 800), torch.tensor([800]), ["xy"])
    (alignment,) = CTCAligner.tiny().align(batch, [torch.tensor([0, 1])], TeacherOf(log_probs, torch.tensor([3])))
    assert alignment.start_samples.tolist() == [320, 640]
    assert alignment.end_samples.tolist() == [640, 800]
    assert alignment.end.tolist() == [0.08, 0.1]
    assert alignment.score == pytest.approx(-0.3)
    assert alignment.token_ids.dtype == torch.int64


def test_what_is_emitted_after_the_audio_is_in_its_last_frame():
    log_probs = torch.full((1, 6, 4), -9.0)
    for t, label in enumerate([0, BLANK, BLANK, BLANK, 1, 2]):
        log_probs[0, t, label] = -0.1
    batch = Batch(["a"], torch.zeros(1, 800), torch.tensor([800]), ["xyz"])
    (alignment,) = CTCAligner.tiny().align(batch, [torch.tensor([0, 1, 2])], TeacherOf(log_probs, torch.tensor([6])))
    assert alignment.start_samples.tolist() == [0, 640, 640]
    assert alignment.end_samples.tolist() == [320, 800, 800]


def test_unknown_backend_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'torch'"):
        backends.find_backend("torhc")


@pytest.fixture
def without_k2(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(k2_client, "candidate_pythons", lambda: [])
    monkeypatch.setattr(k2_client.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv(k2_client.PYTHON_VARIABLE, raising=False)
    k2_client._search.cache_clear()
    backends._warn.cache_clear()
    yield
    k2_client._search.cache_clear()


def test_without_k2_auto_warns_once(without_k2: None, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert backends.find_backend("auto").name == "torch"
        assert backends.find_backend("auto").name == "torch"
    assert len(caplog.records) == 1
    assert "tools/install_k2.sh" in caplog.text


def test_without_k2_asking_for_it_is_an_error(without_k2: None):
    with pytest.raises(InputError, match=r"tools/install_k2\.sh"):
        CTCAligner(backend="k2").backend_version()
