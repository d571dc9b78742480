"""Phrases rescue words that a trained model has never seen, and do no harm to those that it knows."""

from typing import Any, NamedTuple

import jiwer
import pytest
import torch
from torch import Tensor

from reallm.decoders.lstm import LSTMDecoder
from reallm.interleavers.blank import BlankInterleaver
from reallm.protocols import RowOptions
from reallm.searchers._biasing import NO_PHRASES, compile_phrases
from reallm.searchers._end_of_speech import NEVER
from reallm.searchers.beam import BeamSearcher
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.options import PHRASE_BONUS
from reallm.systems.reallm import ReaLLM, Responses
from reallm.tokenizers.character import CharacterTokenizer

KNOWN = ["bad", "cab", "dab", "fed", "deaf", "ace", "bead", "face"]
RARE = ["fab", "bed", "cafe", "decade"]  # of the same letters, each but a letter away from a known one, and in no training text
DIM, NOISE, TEXTS = 24, 1.2, 80


class Trained(NamedTuple):
    """A model that spells what it hears, and two tests: of known words, and with a rare one in the middle of each text."""

    model: ReaLLM
    tokenizer: CharacterTokenizer
    known: tuple[list[str], Tensor, Tensor]
    rare: tuple[list[str], Tensor, Tensor]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """200 updates on letters in noise: some seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = CharacterTokenizer.train(["abcdef"], tmp_path_factory.mktemp("letters") / "letters.json")
        decoder, draw = LSTMDecoder(tokenizer.vocab_size + 1, DIM), torch.Generator().manual_seed(1)
    voice = torch.randn(tokenizer.vocab_size, DIM, generator=draw)
    model = ReaLLM(decoder, BlankInterleaver(tokenizer.vocab_size), GreedySearcher(4))

    def text(count: int) -> str:
        return " ".join(KNOWN[n] for n in torch.randint(len(KNOWN), (count,), generator=draw).tolist())

    def heard(texts: list[str]) -> tuple[Tensor, Tensor, list[Responses]]:
        letters = [torch.tensor(tokenizer.encode(one)) for one in texts]
        lens = torch.tensor([2 * len(one) + 2 for one in letters])
        x = NOISE * torch.randn(len(texts), int(lens.max()), DIM, generator=draw)
        for row, one in enumerate(letters):
            x[row, 1 : 2 * len(one) : 2] += voice[one]
        return x, lens, [Responses(one, 2 * torch.arange(len(one)) + 2) for one in letters]

    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3)
    for _ in range(200):
        x, lens, answers = heard([text(4) for _ in range(32)])
        loss, _ = model.loss(x, model.lay_out(answers, lens))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoder.eval()
    known = [text(6) for _ in range(TEXTS)]
    rare = [f"{text(2)} {RARE[n % len(RARE)]} {text(2)}" for n in range(TEXTS)]
    return Trained(model, tokenizer, (known, *heard(known)[:2]), (rare, *heard(rare)[:2]))


@torch.inference_mode()
def recognize(
    trained: Trained, searcher: Any, test: tuple[list[str], Tensor, Tensor], phrases: list[list[str]], bonus: float = PHRASE_BONUS
) -> list[str]:
    """The text of each row, which has its own ``phrases``."""
    texts, x, lens = test
    rows = len(texts)
    state = searcher.init_state(trained.model, rows, x.size(1))
    held = [searcher.phrases.add(own, bonus, trained.tokenizer) if own else None for own in phrases]
    start = torch.tensor([NO_PHRASES if one is None else one.start for one in held])
    zero = torch.zeros(rows, dtype=torch.int64)
    searcher.begin(state, zero == 0, RowOptions(zero, zero.double(), zero + NEVER, start))
    emission, _ = searcher.step(trained.model, x, lens, zero == 0, state)
    return [trained.tokenizer.decode(ids[:size].tolist()) for ids, size in zip(emission.token_ids, emission.lens.tolist(), strict=True)]


def rescued(trained: Trained, found: list[str]) -> int:
    return sum(RARE[n % len(RARE)] in text.split() for n, text in enumerate(found))


@pytest.mark.parametrize(("searcher", "more"), [(GreedySearcher(4), 3), (BeamSearcher(4, max_symbols=4), 8)], ids=["greedy", "beam"])
def test_rare_words_are_rescued_and_others_come_to_no_harm(trained: Trained, searcher: Any, more: int) -> None:
    nothing, phrases = [[]] * TEXTS, [RARE] * TEXTS
    plain, biased = (recognize(trained, searcher, trained.rare, own) for own in (nothing, phrases))
    assert rescued(trained, biased) >= rescued(trained, plain) + more and rescued(trained, plain) < 0.85 * TEXTS
    assert jiwer.wer(trained.rare[0], biased) < jiwer.wer(trained.rare[0], plain)
    known, with_phrases = (recognize(trained, searcher, trained.known, own) for own in (nothing, phrases))
    assert jiwer.wer(trained.known[0], with_phrases) <= jiwer.wer(trained.known[0], known) + 0.01
    other = recognize(trained, searcher, trained.rare, [["dab face"], ["ace"]] * (TEXTS // 2))
    assert rescued(trained, other) <= rescued(trained, plain) + 1, "those of the list alone"


@pytest.mark.parametrize("searcher", [GreedySearcher(4), BeamSearcher(4, max_symbols=4)], ids=["greedy", "beam"])
def test_each_stream_has_its_own_list(trained: Trained, searcher: Any) -> None:
    lists: list[list[str]] = [[], RARE, ["bed"], ["face cab", "decade"]]
    mixed = recognize(trained, searcher, trained.rare, lists * (TEXTS // 4))
    alone = [recognize(trained, searcher, trained.rare, [own] * TEXTS) for own in lists]
    assert mixed == [alone[row % 4][row] for row in range(TEXTS)]
    assert len({tuple(one) for one in alone}) == 4


@torch.inference_mode()
def test_a_beams_score_has_the_value_of_the_text_and_nothing_that_is_pending(trained: Trained) -> None:
    phrases, bonus = ["face", "bead fed", "ace bad deaf"], 1e-3  # too small to change the text
    texts, x, lens = trained.known
    scores, values = [], []
    for chosen in ([], phrases):
        searcher = BeamSearcher(1, max_symbols=4)
        if chosen:
            searcher.phrases.default = searcher.phrases.add(chosen, bonus, trained.tokenizer)
        state = searcher.init_state(trained.model, len(texts), x.size(1))
        emission, state = searcher.step(trained.model, x, lens, lens > 0, state)
        scores.append(state.hypotheses.score[:, 0])
    automaton = compile_phrases(phrases, bonus, trained.tokenizer)
    pending = 0
    for tokens, size in zip(emission.token_ids.tolist(), emission.lens.tolist(), strict=True):
        at, value = automaton.start, 0.0
        for token in tokens[:size]:
            value, at = value + float(automaton.gain[at, token]), int(automaton.next[at, token])
        values.append(value - float(automaton.pending[at]))
        pending += float(automaton.pending[at]) > 0
    torch.testing.assert_close(scores[1] - scores[0], torch.tensor(values, dtype=torch.float64), atol=1e-7, rtol=0)
    assert pending > 3 and max(values) > 0


def test_greedy_search_says_no_phrase_where_nothing_is_said(trained: Trained) -> None:
    silence = trained.known[0], 0.1 * torch.randn(TEXTS, 20, DIM, generator=torch.Generator().manual_seed(0)), torch.arange(TEXTS) % 20 + 1
    plain, biased = (recognize(trained, GreedySearcher(4), silence, [own] * TEXTS, bonus=99.0) for own in ([], RARE))
    silent = [row for row, text in enumerate(plain) if not text]
    assert len(silent) > 8 and not any(biased[row] for row in silent)
