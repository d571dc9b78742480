"""The transducer: its loss and its searches against sums and maxima over all paths, and the lattice it aligns with."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm.aligners.rnnt import RNNTAligner
from reallm.contract.emissions import collect, require_same_answers
from reallm.contract.system import audio, stream, talkative
from reallm.errors import InputError
from reallm.protocols import AlignmentFailure
from reallm.registry import find
from reallm.searchers.beam import BeamSearcher
from reallm.systems import transducer
from reallm.systems.transducer import Transducer
from reallm.tokenizers.character import CharacterTokenizer
from reallm.types import Batch


def noise(rows: int, samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=["stateless", "lstm"])
def system(request: pytest.FixtureRequest) -> Transducer:
    torch.manual_seed(0)
    built = Transducer.tiny()
    if request.param == "lstm":
        parts = {**built.component_spec.kwargs, "predictor": find("predictor", "lstm")(built.blank_id + 1, dim=10, layers=2)}
        built = Transducer(**parts, joiner_dim=14)
    built.training_chunks = [None]
    return built.double().eval()


def heard(system: Transducer, wav: torch.Tensor) -> torch.Tensor:
    """Encoder frames (1, N, D) of one utterance (1, S), with full context."""
    return system.encode(*system.with_flush(wav, torch.tensor([wav.size(1)])), None)[0]


def cells(system: Transducer, enc: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities (N, U + 1, V) of encoder frames (1, N, D), cell by cell, with the steps that a search takes."""
    decoder, one = system._decoder, torch.tensor([True])
    state = decoder.init_state(1, dtype=torch.float64)
    columns = []
    for number in range(len(tokens) + 1):
        column = []
        for frame in decoder.hear(enc).unbind(1):
            logits, state = decoder.step(frame, one, state)
            column.append(logits.log_softmax(-1)[0])
        columns.append(torch.stack(column))
        if number < len(tokens):
            _, state = decoder.step(decoder.embed(torch.tensor([tokens[number]])), one, state)
    return torch.stack(columns, dim=1)


def path_scores(scores: torch.Tensor, tokens: list[int], blank: int) -> torch.Tensor:
    """The log-probability of every way to say the tokens."""

    def score(frames: tuple[int, ...]) -> torch.Tensor:
        said = [scores[t, u, tokens[u]] for u, t in enumerate(frames)]
        return torch.stack(said + [scores[t, sum(f <= t for f in frames), blank] for t in range(len(scores))]).sum()

    return torch.stack([score(f) for f in itertools.combinations_with_replacement(range(len(scores)), len(tokens))])


@torch.no_grad()
def test_the_loss_sums_over_all_paths(system: Transducer) -> None:
    wav, lens, texts = noise(2, 2400), torch.tensor([2400, 1500]), ["fox", "a"]
    tokens = [system.tokenizer.encode(text) for text in texts]
    rows = zip(wav, lens.tolist(), tokens, strict=True)
    nats = [-path_scores(cells(system, heard(system, w[None, :n]), t), t, system.blank_id).logsumexp(0) for w, n, t in rows]
    loss, _ = system.loss(Batch(["x", "y"], wav, lens, texts))
    assert float(loss) == pytest.approx(float(sum(nats)) / 4, rel=1e-5)


def test_a_share_of_the_loss_is_ctc(system: Transducer) -> None:
    batch = Batch(["x", "y"], noise(2, 2400), torch.tensor([2400, 1500]), ["fox", "a"])
    alone, _ = system.loss(batch)
    shared = Transducer(**{**system.component_spec.kwargs, "ctc_weight": 0.3})
    shared.training_chunks = [None]
    shared.double().eval().load_state_dict(system.state_dict(), strict=False)
    loss, stats = shared.loss(batch)
    enc, lens = shared.encode(*shared.with_flush(batch.wav, batch.wav_lens), None)
    scores = shared.ctc_output(enc).log_softmax(-1)
    texts = [torch.tensor(shared.tokenizer.encode(text)) for text in batch.texts]
    nats = [
        torch.nn.functional.ctc_loss(s[:n], t, [int(n)], [len(t)], shared.blank_id, "sum")
        for s, n, t in zip(scores, lens, texts, strict=True)
    ]
    assert float(stats["loss_transducer"]) == pytest.approx(float(alone), rel=1e-6)
    assert float(stats["loss_ctc"]) == pytest.approx(float(sum(nats)) / 4, rel=1e-5)
    assert float(loss) == pytest.approx(0.7 * float(alone) + 0.3 * float(sum(nats)) / 4, rel=1e-5)
    loss.backward()
    assert shared.ctc_output.weight.grad.abs().sum() > 0
    with pytest.raises(InputError, match="ctc_weight 1: choose a share from 0 up to, but not, 1"):
        Transducer(**{**system.component_spec.kwargs, "ctc_weight": 1})


def test_a_batch_without_text_has_a_loss_and_no_alignment(system: Transducer) -> None:
    batch = Batch(["x"], noise(1, 2000), torch.tensor([2000]), [""])
    assert bool(system.loss(batch)[0].isfinite())
    none = torch.tensor([], dtype=torch.int64)
    assert RNNTAligner.tiny().align(batch, [none], system) == [AlignmentFailure("empty transcript")]


@torch.no_grad()
@pytest.mark.parametrize("numbers", [1 << 24, 1])
def test_the_lattice_is_what_the_search_steps_through(system: Transducer, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transducer, "MOST_NUMBERS", numbers)
    wav, lens, tokens = noise(2, 2400), torch.tensor([2400, 1500]), [[3, 1, 4], [2]]
    blank, token, frames = system.lattice_scores(Batch(["x", "y"], wav, lens, ["", ""]), [torch.tensor(t) for t in tokens])
    assert blank.shape[:2] == token.shape[:2] and blank.size(2) == token.size(2) + 1 == 4
    for row, ids in enumerate(tokens):
        expected = cells(system, heard(system, wav[row : row + 1, : lens[row]]), ids)
        n, u = int(frames[row]), len(ids)
        torch.testing.assert_close(blank[row, :n, : u + 1].double(), expected[..., system.blank_id], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(token[row, :n, :u].double(), expected[:, range(u), ids], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_search_by_definition() -> None:
    system: Any = talkative(Transducer)
    wav, lens = audio(system)
    for row, found in enumerate(collect(system.recognize(wav, lens))):
        enc, enc_lens = system.encode(*system.with_flush(wav[row : row + 1, : lens[row]], lens[row : row + 1]), system.encoder.chunk)
        labels, frames, hits = [system.blank_id], [], 0
        for t in range(int(enc_lens)):
            for number in range(system.searcher.max_symbols + 1):
                prediction = system.predictor.forward(system.predictor.embed(torch.tensor([labels])), torch.tensor([len(labels)]))[0, -1]
                best = int(system.joiner(system.joiner.audio(enc[0, t]), system.joiner.text(prediction)).argmax())
                if best == system.blank_id:
                    break
                if number == system.searcher.max_symbols:
                    hits += 1
                    break
                labels.append(best)
                frames.append(t)
        assert (found.token_ids, found.frame, found.cap_hits) == (labels[1:], frames, hits)


@torch.no_grad()
def test_beam_1_is_greedy_and_a_beam_streams_as_it_recognizes() -> None:
    system: Any = talkative(Transducer)
    wav, lens = audio(system)
    greedy = collect(system.recognize(wav, lens))
    system.searcher = BeamSearcher(beam=1, max_symbols=system.searcher.max_symbols)
    for row, answers in enumerate(collect(system.recognize(wav, lens))):
        require_same_answers(answers, greedy[row], f"row {row}")
    system.searcher = BeamSearcher(beam=4, max_symbols=3)
    wide = collect(system.recognize(wav, lens))
    assert [a.token_ids for a in wide] != [a.token_ids for a in greedy]
    for seed in range(2):
        for row, answers in enumerate(stream(system, wav, lens, seed)):
            require_same_answers(answers, wide[row], f"streamed row {row}")


@torch.no_grad()
def test_a_wide_beam_is_exhaustive(tmp_path: Path) -> None:
    CharacterTokenizer.train(["ab"], tmp_path / "ab.json")
    tokenizer = CharacterTokenizer(tmp_path / "ab.json")
    torch.manual_seed(1)
    tiny = Transducer.tiny().component_spec.kwargs
    predictor = find("predictor", "lstm")(tokenizer.vocab_size + 1, dim=10, layers=1)
    searcher = BeamSearcher(beam=200, merge="off", max_symbols=2, max_pending=4)
    system: Any = Transducer(**{**tiny, "tokenizer": tokenizer, "predictor": predictor, "searcher": searcher, "flush_periods": 0})
    system = system.double().eval()
    for parameter in system.parameters():
        parameter.data.mul_(2.0)
    frames = 2
    wav, lens = noise(1, frames * system.period_samples), torch.tensor([frames * system.period_samples])
    enc, _ = system.encode(wav, lens, system.encoder.chunk)
    state = searcher.init_state(system._model, 1, frames, dtype=torch.float64)
    emission, state = searcher.step(system._model, system._decoder.hear(enc), torch.tensor([frames]), torch.tensor([False]), state)
    found = searcher.n_best(emission.token_ids[0, : emission.lens[0]].tolist(), state)

    responses = [r for size in range(3) for r in itertools.product(range(tokenizer.vocab_size), repeat=size)]
    scores = []
    for path in itertools.product(responses, repeat=frames):
        text = [token for response in path for token in response]
        grid = cells(system, enc, text)
        said = [grid[t, u, text[u]] for u, t in enumerate(t for t, response in enumerate(path) for _ in response)]
        ends = itertools.accumulate(len(response) for response in path)
        scores.append(float(sum(said) + sum(grid[t, u, system.blank_id] for t, u in enumerate(ends))))
    assert len(found) == len(scores) == len(responses) ** frames
    assert [one.score for one in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


def test_a_predictor_of_another_vocabulary_is_refused() -> None:
    parts = Transducer.tiny().component_spec.kwargs
    with pytest.raises(InputError, match=r"predictor vocab_size 7: the tokenizer has \d+ tokens, so it must be"):
        Transducer(**{**parts, "predictor": find("predictor", "stateless")(vocab_size=7, dim=12)})


@torch.no_grad()
def test_the_predictor_rests_while_no_row_reads_a_label(system: Transducer, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, everywhere = system._decoder, torch.tensor([True, True])
    state = decoder.init_state(2, dtype=torch.float64)
    frame, label = decoder.hear(heard(system, noise(1, 2400))[:, 0]).expand(2, -1), decoder.embed(torch.tensor([1, 2]))
    steps = []
    plain = type(system.predictor).step

    def counted(*arguments: Any) -> Any:
        steps.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(type(system.predictor), "step", counted)
    first, state = decoder.step(frame, everywhere, state)
    again, state = decoder.step(frame, everywhere, state)
    assert not steps and torch.equal(first, again)
    other, state = decoder.step(torch.where(torch.tensor([[True], [False]]), label, frame), everywhere, state)
    assert len(steps) == 1 and not torch.equal(other[0], first[0])
    torch.testing.assert_close(other[1], first[1], rtol=0, atol=1e-12)
