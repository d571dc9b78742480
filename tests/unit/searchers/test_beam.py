"""Beam search against greedy search, brute force, and itself in other pieces."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from reallm.contract.system import check_rows_and_padding, check_streaming_equals_offline
from reallm.decoders.llama import LlamaDecoder
from reallm.decoders.lstm import LSTMDecoder
from reallm.errors import InputError
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.protocols import ResponseModel
from reallm.searchers._hypotheses import Hypotheses
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.state import StreamingState
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.systems.transducer import Transducer
from reallm.types import Emission

DIM = 16


def model(seed: int = 5, vocab: int = 6, interleaver: Any = BlankInterleaver, **settings: Any) -> ResponseModel:
    torch.manual_seed(seed)
    decoder = LlamaDecoder(vocab_size=vocab, dim=DIM, layers=2, heads=2, **({"window": 12} | settings)).double().eval()
    torch.nn.init.normal_(decoder.output.weight, std=0.5)
    return ResponseModel(decoder, interleaver(blank_id=vocab - 1))


def speech(rows: int, length: int, seed: int = 6) -> torch.Tensor:
    return torch.randn(rows, length, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def whole(searcher: Any, using: ResponseModel, x: torch.Tensor, lens: torch.Tensor) -> tuple[Emission, Any]:
    state = searcher.init_state(using, x.size(0), x.size(1), dtype=torch.float64)
    return searcher.step(using, x, lens, torch.ones(x.size(0), dtype=torch.bool), state)


def rows_of(*emissions: Emission) -> list[list[tuple[int, int, float]]]:
    """(token, frame, log-probability) of each row."""
    found: list[list[tuple[int, int, float]]] = [[] for _ in emissions[0].lens]
    for e in emissions:
        for row, n in enumerate(e.lens.tolist()):
            found[row] += zip(e.token_ids[row, :n].tolist(), e.frame[row, :n].tolist(), e.log_probs[row, :n].tolist(), strict=True)
    return found


@pytest.mark.parametrize("interleaver", [BlankInterleaver, BlankFedInterleaver])
@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_a_beam_of_one_is_greedy_search(interleaver: Any, penalty: float) -> None:
    tokens = hits = 0
    for seed in range(4):
        using, x, lens = model(seed, interleaver=interleaver), speech(3, 9, seed), torch.tensor([9, 5, 0])
        greedy, _ = whole(GreedySearcher(3, penalty), using, x, lens)
        beam, _ = whole(BeamSearcher(1, max_symbols=3, blank_penalty=penalty, max_pending=2), using, x, lens)
        for got, expected in zip(rows_of(beam), rows_of(greedy), strict=True):
            assert [g[:2] for g in got] == [e[:2] for e in expected]
            assert [g[2] for g in got] == pytest.approx([e[2] for e in expected], abs=1e-5)
        assert beam.cap_hits.tolist() == greedy.cap_hits.tolist()
        tokens, hits = tokens + int(greedy.lens.sum()), hits + int(greedy.cap_hits.sum())
    assert tokens > 30 and hits > 3  # the case is not empty


def every_path(using: ResponseModel, x: torch.Tensor, cap: int) -> list[tuple[list[tuple[int, int]], float]]:
    """(tokens and frames, log-probability) of all sequences of responses of at most ``cap`` tokens, best first."""
    blank = using.interleaver.blank_id
    texts = [r for size in range(cap + 1) for r in itertools.product(range(blank), repeat=size)]
    found = []
    for responses in itertools.product(texts, repeat=x.size(0)):
        inputs, targets, said = [], [], []
        for m, response in enumerate(responses):
            inputs += [x[m], *(using.decoder.embed(torch.tensor(t)) for t in response)]
            targets += [*response, blank]
            said += [(t, m) for t in response]
        logits = using.decoder.forward(torch.stack(inputs).unsqueeze(0), torch.tensor([len(inputs)]))[0]
        found.append((said, float(logits.log_softmax(-1)[range(len(targets)), targets].sum())))
    return sorted(found, key=lambda path: -path[1])


@torch.no_grad()
def test_without_merging_a_wide_beam_is_exhaustive_search() -> None:
    using, x = model(vocab=3), speech(1, 3)
    expected = every_path(using, x[0], cap=2)
    searcher = BeamSearcher(beam=len(expected), merge="off", max_symbols=2)
    emission, state = whole(searcher, using, x, torch.tensor([3]))
    assert [(t, f) for t, f, _ in rows_of(emission)[0]] == expected[0][0]
    found = searcher.n_best([t for t, _, _ in rows_of(emission)[0]], state)
    assert len(found) == 7**3
    assert [n.score for n in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert [n.token_ids for n in found[:50]] == [[t for t, _ in said] for said, _ in expected[:50]]


@dataclass
class LastState(StreamingState):
    """What was heard last."""

    heard: torch.Tensor  # (B, V)


class LastDecoder(torch.nn.Module):
    """Scores are what was heard last plus what the last token adds: a text's score does not depend on when it was said."""

    vocab_size = input_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        return 100 + token_ids.double().unsqueeze(-1).expand(*token_ids.shape, 3)

    def init_state(self, batch: int, device: Any = "cpu", dtype: Any = torch.float32) -> LastState:
        return LastState(torch.zeros(batch, 4, dtype=torch.float64))

    def step(self, inputs: torch.Tensor, active: torch.Tensor, state: LastState) -> tuple[torch.Tensor, LastState]:
        reads = inputs[:, :1] > 50
        token = torch.where(reads, inputs[:, :1] - 100, state.heard[:, 3:])
        heard = torch.cat([torch.where(reads, state.heard[:, :3], inputs), token], dim=1)
        heard = torch.where(active.unsqueeze(1), heard, state.heard)
        return heard[:, :3] + self.table[heard[:, 3].long()], LastState(heard)


@pytest.mark.parametrize("merge", ["max", "logadd"])
def test_equal_texts_are_merged_by_max_or_logadd(merge: Any) -> None:
    using = ResponseModel(LastDecoder(), BlankInterleaver(blank_id=2))
    x = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    unmerged = BeamSearcher(beam=343, merge="off", max_symbols=2)
    emission, state = whole(unmerged, using, x, torch.tensor([3]))
    by_text: dict[tuple[int, ...], list[float]] = {}
    for path in unmerged.n_best(emission.token_ids[0, : emission.lens[0]].tolist(), state):
        by_text.setdefault(tuple(path.token_ids), []).append(path.score)
    total = {text: max(scores) if merge == "max" else math.log(sum(map(math.exp, scores))) for text, scores in by_text.items()}

    searcher = BeamSearcher(beam=343, merge=merge, max_symbols=2)
    emission, state = whole(searcher, using, x, torch.tensor([3]))
    found = searcher.n_best(emission.token_ids[0, : emission.lens[0]].tolist(), state)
    assert len(found) == len(total) < 343
    assert {tuple(n.token_ids): n.score for n in found} == pytest.approx(total, abs=1e-5)
    assert [n.score for n in found] == sorted((n.score for n in found), reverse=True)


@pytest.mark.parametrize("settings", [{}, {"merge": "off"}, {"merge": "max", "max_pending": 1}])
def test_pieces_and_neighbours_change_nothing_and_nothing_is_taken_back(settings: Any) -> None:
    using, x, lens = model(), speech(4, 13), torch.tensor([13, 6, 0, 9])
    searcher = BeamSearcher(4, max_symbols=3, **settings)
    expected = rows_of(whole(searcher, using, x, lens)[0])
    assert min(len(expected[row]) for row in (0, 1, 3)) > 3
    waited = 0
    for pieces in ([13], [1] * 13, [5, 0, 3, 4, 1], [2, 7, 4]):
        state, emissions, at = searcher.init_state(using, 4, max(pieces), dtype=torch.float64), [], 0
        for piece in pieces:
            now = (lens - at).clamp(0, piece)
            chunk = torch.nn.functional.pad(x[:, at : at + piece], (0, 0, 0, max(pieces) - piece))
            final = (lens <= at + piece) & ((lens > at) | (at == 0))
            emission, state = searcher.step(using, chunk, now, final, state)
            emissions.append(emission)
            at += piece
            waited += int((state.hypotheses.length * state.hypotheses.live).amax(1)[~final].sum())
        for got, want in zip(rows_of(*emissions), expected, strict=True):
            assert [g[:2] for g in got] == [w[:2] for w in want]
            assert [g[2] for g in got] == pytest.approx([w[2] for w in want], abs=1e-5)
    assert waited > 0  # something was held back until the hypotheses agreed


def test_what_is_put_out_is_what_all_hypotheses_share() -> None:
    using, x = model(), speech(1, 12)
    searcher = BeamSearcher(3, max_symbols=3)
    state, emitted = searcher.init_state(using, 1, 1, dtype=torch.float64), []
    for m in range(12):
        emission, state = searcher.step(using, x[:, m : m + 1], torch.tensor([1]), torch.tensor([False]), state)
        emitted += emission.token_ids[0, : emission.lens[0]].tolist()
        texts = [n.token_ids for n in searcher.n_best(emitted, state)]
        assert len(texts) == 3 and all(text[: len(emitted)] == emitted for text in texts)
        held = state.hypotheses
        first = {(int(held.token_ids[0, k, 0]), int(held.frame[0, k, 0])) for k in range(3)}
        assert len(first) > 1 or (-1, -1) in first, "all agree on one more token, and it was not put out"
    assert len(emitted) > 5


def test_hypotheses_share_a_token_only_if_they_share_its_time() -> None:
    hypotheses = Hypotheses.start(1, 2, 3, 0, "cpu")
    hypotheses.live[:] = True
    for token, frames in ((7, [2, 2]), (8, [3, 4])):
        for slot, frame in enumerate(frames):
            here = torch.tensor([[slot == 0, slot == 1]])
            hypotheses.append(here, torch.tensor([[token, token]]), torch.tensor([[frame]]), torch.zeros(1, 2))
    assert hypotheses.shared().tolist() == [1]
    assert hypotheses.apart(0).tolist() == [True] and hypotheses.apart(1).tolist() == [False]
    assert hypotheses.equal(hypotheses.live).all()  # of equal text nevertheless


@torch.no_grad()
def test_tokens_and_times_put_out_piece_by_piece_are_those_of_one_hypothesis() -> None:
    for seed in range(2):
        using, x = model(seed), speech(1, 10, seed)
        searcher = BeamSearcher(8, merge="off", max_symbols=3)
        state, emissions = searcher.init_state(using, 1, 1, dtype=torch.float64), []
        for m in range(10):
            emission, state = searcher.step(using, x[:, m : m + 1], torch.tensor([1]), torch.tensor([m == 9]), state)
            emissions.append(emission)
        said = [(t, f) for t, f, _ in rows_of(*emissions)[0]]
        inputs, targets = [], []
        for m in range(10):
            response = [t for t, f in said if f == m]
            inputs += [x[0, m], *(using.decoder.embed(torch.tensor(t)) for t in response)]
            targets += [*response, using.interleaver.blank_id]
        log_probs = using.decoder.forward(torch.stack(inputs).unsqueeze(0), torch.tensor([len(inputs)]))[0].log_softmax(-1)
        best = searcher.n_best([t for t, _ in said], state)[0]
        assert best.token_ids == [t for t, _ in said]
        assert best.score == pytest.approx(float(log_probs[range(len(targets)), targets].sum()), abs=1e-4)


def test_hypotheses_that_disagree_for_too_long_give_way_to_the_best() -> None:
    using, x, lens = model(), speech(1, 12), torch.tensor([12])
    held = {}
    for most in (1, 64):
        searcher = BeamSearcher(4, merge="off", max_symbols=3, max_pending=most)
        state = searcher.init_state(using, 1, 12, dtype=torch.float64)
        _, state = searcher.step(using, x, lens, torch.tensor([False]), state)
        held[most] = int((state.hypotheses.length * state.hypotheses.live).max())
    assert held[1] <= 1 < held[64]


@pytest.mark.parametrize("pieces", [[4], [1] * 4])
def test_a_row_that_comes_to_the_decoders_capacity_ends_alone(pieces: list[int]) -> None:
    x = speech(2, 4)
    for beam in (1, 3):
        searcher = BeamSearcher(beam, max_symbols=3, max_pending=5)
        positions = {}
        for capacity in (40, 6):
            using = model(window=0, capacity=capacity)
            state, emissions, at = searcher.init_state(using, 2, 4, dtype=torch.float64), [], 0
            for piece in pieces:
                chunk = torch.nn.functional.pad(x[:, at : at + piece], (0, 0, 0, 4 - piece))
                emission, state = searcher.step(using, chunk, (torch.tensor([4, 1]) - at).clamp(0, piece), torch.tensor([False] * 2), state)
                emissions.append(emission)
                at += piece
            assert emissions[-1].exhausted is not None
            positions[capacity] = emissions[-1].exhausted.tolist()
            assert int(state.hypotheses.position.max()) <= capacity
            if capacity == 6 and beam == 1:
                greedy = GreedySearcher(3)
                start = greedy.init_state(using, 2, 4, dtype=torch.float64)
                emission, _ = greedy.step(using, x, torch.tensor([4, 1]), torch.tensor([False] * 2), start)
                assert [[t[:2] for t in r] for r in rows_of(*emissions)] == [[t[:2] for t in r] for r in rows_of(emission)]
        assert positions == {40: [False, False], 6: [True, False]}


def test_a_wider_beam_finds_a_better_score() -> None:
    using, x, lens = ResponseModel(LSTMDecoder(6, DIM).double().eval(), BlankInterleaver(blank_id=5)), speech(1, 12), torch.tensor([12])
    scores = []
    for beam in (1, 16):
        searcher = BeamSearcher(beam, merge="max", max_symbols=3)
        emission, state = whole(searcher, using, x, lens)
        scores.append(searcher.n_best(emission.token_ids[0, : emission.lens[0]].tolist(), state)[0].score)
    assert scores[0] < scores[1] - 1e-3


class BeamReaLLM(SpeechReaLLM):
    @classmethod
    def tiny(cls) -> Any:
        system = SpeechReaLLM.tiny()
        system.searcher = BeamSearcher.tiny()
        return system


class BeamTransducer(Transducer):
    @classmethod
    def tiny(cls) -> Any:
        system = Transducer.tiny()
        system.searcher = BeamSearcher.tiny()
        return system


@pytest.mark.parametrize("cls", [BeamReaLLM, BeamTransducer])
def test_systems_stream_with_it_as_they_recognize(cls: Any) -> None:
    check_streaming_equals_offline(cls)
    check_rows_and_padding(cls)


def test_settings_out_of_range_are_refused() -> None:
    for settings, message in (
        ({"beam": 0}, "beam 0"),
        ({"max_symbols": 0}, "max_symbols 0"),
        ({"max_pending": 0}, "max_pending 0"),
        ({"merge": "logad"}, "did you mean 'logadd'"),
    ):
        with pytest.raises(InputError, match=message):
            BeamSearcher(**settings)  # type: ignore[arg-type]
