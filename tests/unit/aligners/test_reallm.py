"""Self-alignment against all paths there are, each scored by the parallel training pass."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reallm.bundle
from reallm.aligners import reallm as self_alignment
from reallm.aligners.corpus import read_report, report_of
from reallm.aligners.reallm import ReaLLMAligner, answered_embeddings
from reallm.data.alignments import token_alignment, token_meta
from reallm.data.cuts import read_cuts
from reallm.data.dataset import load_batch
from reallm.decoders.llama import LlamaDecoder
from reallm.errors import InputError
from reallm.protocols import Aligner, AlignmentFailure
from reallm.registry import find
from reallm.systems.reallm import ReaLLM
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.tokenizers.word import WordTokenizer
from reallm.types import Alignment, Batch
from tests.dummies.aligners import write_strings
from tests.dummies.command import run_and_read

INTERLEAVERS = ["blank", "blank_fed", "chunk_eos", "delayed_stream"]
ALL = 70  # histories of a node, here
TOKENS = [torch.tensor(ids) for ids in ([5, 1, 7], [4], [2, 2, 9, 1], [3, 8])]
PERIODS = [4.3, 2.0, 5.0, 3.1]


def system(interleaver: str = "blank", delay: int = 1, **options: Any) -> SpeechReaLLM:
    """Random weights, in double precision, that know what they want to say."""
    torch.manual_seed(3)
    parts = dict(SpeechReaLLM.tiny().component_spec.kwargs)
    blank_id = parts["tokenizer"].vocab_size
    chosen = find("interleaver", interleaver)
    parts["interleaver"] = chosen(blank_id, chunk_size=2) if interleaver == "chunk_eos" else chosen(blank_id)
    found = SpeechReaLLM(**{**parts, "delay": delay, "flush_periods": 2, **options}).double().eval()
    found.decoder.output.weight.data.mul_(60)
    return found


def noise(teacher: SpeechReaLLM, periods: list[float], seed: int = 0) -> Batch:
    """Utterances that last so many token periods."""
    lens = torch.tensor([int(p * teacher.period_samples) for p in periods])
    wav = 0.1 * torch.randn(len(periods), int(lens.max()), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Batch([str(row) for row in range(len(periods))], wav, lens, [""] * len(periods))


def only(batch: Batch, row: int) -> Batch:
    """One utterance of a batch, without padding."""
    samples = batch.wav_lens[row : row + 1]
    return Batch(["0"], batch.wav[row : row + 1, : int(samples)], samples, [""])


def aligned(teacher: SpeechReaLLM, batch: Batch, token_ids: list[Tensor], beam: int) -> list[Alignment]:
    found = ReaLLMAligner(beam).align(batch, token_ids, teacher)
    assert all(isinstance(one, Alignment) for one in found), found
    return [one for one in found if isinstance(one, Alignment)]


def paths(interleaver: str, tokens: int, least: int, most: int) -> Iterator[tuple[int, ...]]:
    """All ways to say so many tokens in answer to the speech embeddings from ``least`` to ``most``."""
    for path in itertools.combinations_with_replacement(range(least, most + 1), tokens):
        if interleaver == "chunk_eos" and any(t % 2 == 0 for t in path):
            continue
        if interleaver != "delayed_stream" or len(set(path)) == tokens:
            yield path


@torch.no_grad()
def scores(teacher: SpeechReaLLM, speech: Tensor, ids: Tensor, tried: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Of P paths (P,), and of their tokens (P, U): by the layout of training sequences and one parallel pass."""
    lens, no_scores = torch.full((len(tried),), speech.size(1)), torch.zeros(len(ids)).double()
    alignments = [Alignment(ids, at, at + 1, no_scores, 1) for at in map(torch.tensor, tried)]
    laid_out = teacher.interleaver.build(alignments, lens, torch.zeros_like(lens), 1)
    assert [tuple(frames.tolist()) for frames in answered_embeddings(laid_out, teacher.interleaver.blank_id)] == tried
    model = ReaLLM(teacher.decoder, teacher.interleaver, teacher.searcher)
    inputs = model.inputs(speech.expand(len(tried), -1, -1), laid_out)
    log_probs = teacher.decoder.forward(inputs, laid_out.lens).log_softmax(-1)
    asked = laid_out.targets != -100
    found = log_probs.gather(2, laid_out.targets.clamp(min=0).unsqueeze(2)).squeeze(2).masked_fill(~asked, 0)
    said = asked & (laid_out.targets != teacher.interleaver.blank_id)
    return found.sum(1), found[said].view(len(tried), -1)


@torch.no_grad()
def asked_for(teacher: SpeechReaLLM, batch: Batch, alignments: list[Alignment]) -> list[list[int]]:
    """The speech embeddings that training on these alignments asks to answer with tokens."""
    _, lens = teacher.stream_embeddings(batch)
    laid_out = teacher.interleaver.build(alignments, lens, torch.full_like(lens, teacher.delay), teacher.period_samples)
    return [frames.tolist() for frames in answered_embeddings(laid_out, teacher.interleaver.blank_id)]


def test_is_an_aligner() -> None:
    assert isinstance(ReaLLMAligner.tiny(), Aligner)


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("interleaver", INTERLEAVERS)
def test_keeping_all_histories_equals_trying_all_paths(interleaver: str, delay: int) -> None:
    teacher = system(interleaver, delay)
    batch = noise(teacher, PERIODS)
    found = aligned(teacher, batch, TOKENS, ALL)
    earliest = set()
    for row, (ids, alignment, asked) in enumerate(zip(TOKENS, found, asked_for(teacher, batch, found), strict=True)):
        speech, _ = teacher.stream_embeddings(only(batch, row))
        last = -(-int(batch.wav_lens[row]) // teacher.period_samples) - 1 + delay
        last = last // 2 * 2 + 1 if interleaver == "chunk_eos" else last
        tried = list(paths(interleaver, len(ids), delay, last))
        totals, of_tokens = scores(teacher, speech, ids, tried)
        best = int(totals.argmax())
        assert tuple(asked) == tried[best], f"of {len(tried)} paths"
        assert alignment.score == pytest.approx(float(totals[best]), abs=1e-9)
        assert alignment.scores.tolist() == pytest.approx(of_tokens[best].tolist(), abs=1e-9)
        assert bool((alignment.end_samples <= batch.wav_lens[row]).all())
        earliest.add(asked[0] - delay)
    assert len(earliest) > 1, "no matter of course"


@torch.no_grad()
def k_best(teacher: SpeechReaLLM, speech: Tensor, ids: list[int], beam: int) -> tuple[float, list[int]]:
    """The rule by which histories are kept, one node and one history after the other; all without a decoder's state."""
    blank, size = teacher.interleaver.blank_id, speech.size(1)

    @functools.cache
    def log_probs(answers: tuple[int, ...]) -> Tensor:
        inputs = [speech[0, 0]]
        for one in answers:
            inputs.append(teacher.decoder.embed(torch.tensor(one)) if one != blank else speech[0, answers[: len(inputs)].count(blank)])
        return teacher.decoder.forward(torch.stack(inputs).unsqueeze(0), torch.tensor([len(inputs)]))[0, -1].log_softmax(-1)

    nodes: dict[tuple[int, int], list[tuple[float, tuple[int, ...]]]] = {(0, 0): [(0.0, ())]}
    for t, u in itertools.product(range(size + 1), range(len(ids) + 1)):
        come = [(s + float(log_probs(a)[blank]), (*a, blank)) for s, a in nodes.get((t - 1, u), [])]
        if u > 0 and 1 <= t < size - 1:  # a delay of one token period, two of flush
            come += [(s + float(log_probs(a)[ids[u - 1]]), (*a, ids[u - 1])) for s, a in nodes.get((t, u - 1), [])]
        if come:
            nodes[t, u] = sorted(come, key=lambda each: -each[0])[:beam]
    score, answers = nodes[size, len(ids)][0]
    return score, [answers[:at].count(blank) for at, one in enumerate(answers) if one != blank]


def test_the_best_histories_of_each_node_are_kept() -> None:
    teacher, lost = system(), 0
    for seed in range(2):
        batch = noise(teacher, PERIODS[2:], seed)
        by_beam = [aligned(teacher, batch, TOKENS[2:], beam) for beam in (1, 2, ALL)]
        for beam, found in zip((1, 2), by_beam, strict=False):
            for row, asked in enumerate(asked_for(teacher, batch, found)):
                best, path = k_best(teacher, teacher.stream_embeddings(only(batch, row))[0], TOKENS[2 + row].tolist(), beam)
                assert (asked, found[row].score) == (path, pytest.approx(best, abs=1e-9)), f"beam {beam}, utterance {row}"
        lost += sum(one.score < every.score - 1e-6 for one, every in zip(by_beam[0], by_beam[2], strict=True))
    assert lost, "one history is not always enough"


@pytest.mark.parametrize("interleaver", [*INTERLEAVERS, "several delays"])
def test_training_on_it_asks_for_this_very_path(interleaver: str) -> None:
    several = {"training_delays": [0, 2]} if interleaver == "several delays" else {}
    teacher = system("blank" if several else interleaver, **several)
    batch = noise(teacher, [6.5, 3.0])
    batch.alignments = aligned(teacher, batch, [torch.tensor([5, 1, 7, 1]), torch.tensor([4, 4])], 2)
    with torch.no_grad():
        loss, stats = teacher.loss(batch)
    assert float(loss) * int(stats["targets"]) == pytest.approx(-sum(a.score for a in batch.alignments), rel=1e-6)


def test_groups_of_utterances_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = system()
    batch = noise(teacher, PERIODS)
    together = aligned(teacher, batch, TOKENS, 2)
    monkeypatch.setattr(self_alignment, "MEMORY", 1)
    for one, other in zip(together, aligned(teacher, batch, TOKENS, 2), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-9) and torch.equal(one.end_samples, other.end_samples)


def test_failures_name_their_reason() -> None:
    teacher = system()
    batch = noise(teacher, [3.0, 3.0, 3.0])
    batch.wav_lens[2] = 0
    found = ReaLLMAligner(2).align(batch, [torch.tensor([1] * 9), torch.tensor([], dtype=torch.int64), torch.tensor([1])], teacher)
    assert isinstance(found[0], Alignment)
    assert found[1:] == [AlignmentFailure("empty transcript"), AlignmentFailure("too short: no audio")]


def test_each_speech_embedding_of_a_delayed_stream_has_one_token() -> None:
    teacher = system("delayed_stream")
    batch = noise(teacher, [3.0, 3.0])
    full, more = ReaLLMAligner(1).align(batch, [torch.tensor([1] * 3), torch.tensor([1] * 4)], teacher)
    assert isinstance(full, Alignment)
    assert more == AlignmentFailure("no path: 5 speech embeddings cannot be answered with its 4 tokens")


def test_what_a_decoder_has_no_room_for_fails_alone() -> None:
    decoder = LlamaDecoder(SpeechReaLLM.tiny().decoder.vocab_size, dim=16, layers=2, heads=2, window=0, capacity=8)
    teacher = system(decoder=decoder)
    fits, long = ReaLLMAligner(2).align(noise(teacher, [3.0, 5.0]), [torch.tensor([1, 2, 3]), torch.tensor([1, 2])], teacher)
    assert isinstance(fits, Alignment), "three periods, two of flush and three tokens are eight positions"
    assert long == AlignmentFailure("too long: 7 speech embeddings and 2 tokens are more than the decoder has room for")


def test_scores_that_are_no_numbers_fail_alone() -> None:
    teacher = system()
    batch = noise(teacher, [3.0, 2.0])
    batch.wav[1] = torch.nan
    good, bad = ReaLLMAligner(2).align(batch, [torch.tensor([1, 2]), torch.tensor([1])], teacher)
    assert isinstance(good, Alignment) and bad == AlignmentFailure("the teacher's scores hold NaN")


def test_mistakes_are_named() -> None:
    teacher = system()
    blank = teacher.tokenizer.vocab_size
    with pytest.raises(InputError, match=f"token id {blank} is not below BLANK = {blank}: align with the teacher's own tokenizer"):
        ReaLLMAligner(2).align(noise(teacher, [3.0]), [torch.tensor([blank])], teacher)
    with pytest.raises(InputError, match="CTC has no answers to speech embeddings to align with: name a trained `speech_reallm` system"):
        ReaLLMAligner(2).align(noise(teacher, [3.0]), [torch.tensor([1])], find("system", "ctc").tiny())
    with pytest.raises(InputError, match="beam is 0: at least 1"):
        ReaLLMAligner(0)


def test_command(tmp_path: Path) -> None:
    teacher = system().float()
    texts = ["the fox", "a lazy dog", "jumps"]
    manifest, bundle, out = write_strings(tmp_path / "cuts", teacher.tokenizer, texts), tmp_path / "bundle", tmp_path / "a.jsonl.gz"
    reallm.bundle.export(teacher, bundle, {"title": "t", "training_data": "noise", "license": "CC0"})
    options = ["align", bundle, "--cuts", manifest, "--out", out]
    code, shown = run_and_read(*options)
    assert code == 0 and "3 utterances aligned by forced beam 4, 0 failed" in shown and "word ends against the truth (6 words)" in shown
    cuts = list(read_cuts(out))
    stored = [alignment for cut in cuts if (alignment := token_alignment(cut, 8000)) is not None]
    loaded: Any = reallm.bundle.load_teacher(bundle)
    batch = load_batch(cuts, 8000)
    found = aligned(loaded, batch, [torch.tensor(loaded.tokenizer.encode(text)) for text in texts], 4)
    assert asked_for(loaded, batch, stored) == asked_for(loaded, batch, found)
    assert (token_meta(cuts[0]) or {}).get("aligner") == "reallm"
    assert run_and_read(*options, "--beam", 1)[0] == 0 and (read_report(report_of(out)) or {})["version"] == "1", (
        "another beam is done anew"
    )
    WordTokenizer.train(["a b", "c"], tmp_path / "words.json")
    code, shown = run_and_read(*options, "--tokenizer", f"word={tmp_path / 'words.json'}")
    assert code == 2 and "cut '0000'" in shown
    code, shown = run_and_read(*options, "--backend", "torch")
    assert code == 2 and "--backend torch is not for the aligner 'reallm'" in shown
