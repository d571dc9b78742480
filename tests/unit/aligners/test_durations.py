"""Durations of tokens from alignments, and the systems that are told them."""

import logging
from pathlib import Path

import pytest
import torch

from reallm.aligners.durations import FEWEST, spread_cuts, token_durations, with_token_durations
from reallm.data.alignments import with_token_alignment
from reallm.data.cuts import read_cuts, text_of, write_cuts
from reallm.registry import spec_of
from reallm.systems.ctc import CTC
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.types import Alignment
from tests.dummies.data import write_corpus

RATE, PERIOD = 1000, 80


def aligned(*tokens: tuple[int, int, int]) -> Alignment:
    """Tokens as (id, start, end) in ms."""
    ids, start, end = torch.tensor(tokens, dtype=torch.int64).reshape(-1, 3).T
    return Alignment(ids, start, end, torch.zeros(len(ids)).double(), RATE)


def test_a_token_lasts_from_the_end_of_the_one_before_it_and_pauses_do_not_count() -> None:
    # Token 0 follows token 1: 320 ms later, with its peak in the last 80 ms, and in half of the cases a pause before.
    connected, paused = aligned((1, 0, 160), (0, 400, 480)), aligned((1, 0, 160), (0, 1200, 1280))
    found = token_durations([connected, paused] * FEWEST, vocab_size=3, period_samples=PERIOD)
    assert found == [0.32, 0.32, 0.32], "tokens that follow none, or are never heard, get the duration of all"


def test_a_token_that_is_rare_gets_the_duration_of_all() -> None:
    common = [aligned((1, 0, 160), (0, 400, 480))] * FEWEST
    rare = [aligned((0, 0, 160), (1, 200, 240))] * (FEWEST - 1)
    assert token_durations(common + rare, 2, PERIOD) == [0.32, 0.08]  # the lower quartile of 8 times 320 and 7 times 80 ms
    assert token_durations(common * 9 + rare, 2, PERIOD) == [0.32, 0.32]
    assert token_durations(common * 9 + rare + rare[:1], 2, PERIOD) == [0.32, 0.08]


def test_it_lasts_to_the_end_of_its_token_period() -> None:
    assert token_durations([aligned((0, 0, 160), (0, 200, 161 + PERIOD * 3))] * FEWEST, 1, PERIOD) == [0.32]


def test_where_each_recording_is_one_token_its_aligned_start_counts() -> None:
    assert token_durations([aligned((0, 100, 320))] * FEWEST, 2, PERIOD) == [0.22, 0.22]
    assert token_durations([aligned()], 2, PERIOD) is None
    assert token_durations([], 2, PERIOD) is None


def test_a_system_is_told_the_durations_of_its_training_cuts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    system = SpeechReaLLM.tiny().eval()
    manifests = write_corpus(tmp_path / "corpus", train_strings=20, epochs=1)
    plain = manifests / "train.jsonl.gz"
    made = []
    for cut in read_cuts(plain):
        ids = torch.tensor(system.tokenizer.encode(text_of(cut)))
        ends = 1000 * (torch.arange(len(ids)) + 1)  # more than a token period of 640 samples: two of them
        alignment = Alignment(ids, ends - 80, ends, torch.zeros(len(ids)).double(), 8000)
        meta = {"tokenizer": system.tokenizer.fingerprint, "backend": "even", "version": "1"}
        # Outside of the cut tokens are not its own: a long cut for all of them.
        made.append(with_token_alignment(cut.pad(duration=20.0), alignment, [str(i) for i in ids.tolist()], meta))
    write_cuts(made, tmp_path / "aligned.jsonl.gz")

    told = with_token_durations(system, tmp_path / "aligned.jsonl.gz")
    durations = spec_of(told).kwargs["token_durations"]
    assert len(durations) == system.tokenizer.vocab_size and all(0.125 <= d <= 0.125 + 0.08 for d in durations)
    assert not told.training
    assert all(torch.equal(a, b) for a, b in zip(told.state_dict().values(), system.state_dict().values(), strict=True))
    assert with_token_durations(told, plain) is told, "what it was given stays"

    for other in (plain, tmp_path / "none.jsonl.gz"):
        with caplog.at_level(logging.WARNING):
            assert with_token_durations(system, other) is system
        assert f"no aligned cuts of this system in {other}" in caplog.text
    ctc = CTC.tiny().eval()
    assert with_token_durations(ctc, tmp_path / "aligned.jsonl.gz") is ctc


def test_of_a_long_manifest_cuts_from_all_over_it_count(tmp_path: Path) -> None:
    plain = write_corpus(tmp_path / "corpus", train_strings=11, epochs=1) / "train.jsonl.gz"
    ids = [cut.id for cut in read_cuts(plain)]
    assert [cut.id for cut in spread_cuts(plain, most=4)] == ids[::3]
    assert [cut.id for cut in spread_cuts(plain, most=11)] == ids
