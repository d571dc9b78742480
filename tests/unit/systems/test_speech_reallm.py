"""Speech ReaLLM: its loss by the definition, its flush, and what it refuses."""

import pytest
import torch

from reallm.adapters.stack import StackingAdapter
from reallm.decoders.llama import LlamaDecoder
from reallm.encoders.conformer import ConformerEncoder
from reallm.errors import InputError
from reallm.frontends.log_mel import LogMelFrontend
from reallm.interleavers.blank import BlankInterleaver
from reallm.searchers.greedy import GreedySearcher
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.tokenizers.character import CharacterTokenizer
from reallm.types import Alignment, Batch
from tests.dummies.host_reads import host_reads

PERIOD = 640  # samples: 80 samples a frame, stride 4, stack 2


def build(**changes: object) -> SpeechReaLLM:
    tokenizer = CharacterTokenizer.tiny()
    size = tokenizer.vocab_size + 1
    parts: dict[str, object] = {
        "frontend": LogMelFrontend(sample_rate=8000, mels=8),
        "encoder": ConformerEncoder(8, dim=16, layers=2, heads=2, hidden=16, kernel=3, chunk_size=4, left=4, dropout=0.0),
        "adapter": StackingAdapter(input_dim=16, output_dim=16, stride=2),
        "decoder": LlamaDecoder(size, dim=16, layers=2, heads=2, window=9),
        "interleaver": BlankInterleaver(blank_id=tokenizer.vocab_size),
        "searcher": GreedySearcher(max_symbols=3),
        "tokenizer": tokenizer,
    }
    return SpeechReaLLM(**(parts | changes))  # type: ignore[arg-type]


def batch(system: SpeechReaLLM) -> Batch:
    wav_lens = torch.tensor([5000, 3 * PERIOD])
    wav = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 0.1
    ids = [torch.tensor([1, 2, 3]), torch.tensor([0])]
    ends = [torch.tensor([700, 1300, 5000]), torch.tensor([3 * PERIOD])]
    alignments = [Alignment(i, e - 10, e, torch.zeros(len(i)).double(), 8000) for i, e in zip(ids, ends, strict=True)]
    return Batch(["a", "b"], wav, wav_lens, ["", ""], alignments)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_every_answer() -> None:
    torch.manual_seed(1)
    system = build(delay=1).double().eval()
    data = batch(system)
    data.wav = data.wav.double()
    loss, stats = system.loss(data)
    blank, total, positions = system.interleaver.blank_id, 0.0, 0
    for b, alignment in enumerate(data.alignments or []):
        samples = int(data.wav_lens[b])
        periods = -(-samples // PERIOD) + 1  # and one of flush
        padded = torch.zeros(1, periods * PERIOD, dtype=torch.float64)
        padded[0, :samples] = data.wav[b, :samples]
        speech, lens = system.embeddings(padded, torch.tensor([periods * PERIOD]), system.encoder.chunk)
        assert lens.tolist() == [periods]
        inputs, targets, u = [], [], 0
        for m in range(1, periods + 1):
            inputs.append(speech[0, m - 1])
            while u < len(alignment.token_ids) and -(-int(alignment.end_samples[u]) // PERIOD) + 1 == m:
                targets.append(int(alignment.token_ids[u]))
                inputs.append(system.decoder.embed(alignment.token_ids[u]))
                u += 1
            targets.append(blank)
        assert u == len(alignment.token_ids)  # the last one came in the flush
        logits = system.decoder.forward(torch.stack(inputs).unsqueeze(0), torch.tensor([len(inputs)]))[0]
        total += float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(targets), reduction="sum"))
        positions += len(targets)
    assert float(loss) == pytest.approx(total / positions, rel=1e-5)
    assert set(stats) == {"loss_blank", "loss_text", "accuracy", "targets"} and int(stats["targets"]) == positions


@torch.no_grad()
def test_statistics_are_those_of_each_kind_of_position_and_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    system = build().eval()
    answered: list[torch.Tensor] = []
    decode = system.decoder.forward

    def forward(inputs: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        answered.append(decode(inputs, lens))
        reads.clear()  # what comes after the decoder is the loss and its statistics
        return answered[0]

    monkeypatch.setattr(system.decoder, "forward", forward)
    data = batch(system)
    with host_reads() as reads:
        _, stats = system.loss(data)
        assert reads == []
    targets = system.interleaver.build(data.alignments or [], torch.tensor([9, 4]), torch.tensor([1, 1]), PERIOD).targets
    losses = torch.nn.functional.cross_entropy(answered[0].transpose(1, 2), targets, reduction="none")
    blank, asked = targets == system.interleaver.blank_id, targets != -100
    assert float(stats["loss_blank"]) == pytest.approx(float(losses[blank].mean()), rel=1e-5)
    assert float(stats["loss_text"]) == pytest.approx(float(losses[asked & ~blank].mean()), rel=1e-5)
    assert float(stats["accuracy"]) == pytest.approx(float((answered[0].argmax(-1) == targets)[asked].double().mean()))
    assert not any(torch.as_tensor(number).requires_grad for number in stats.values())


@torch.no_grad()
def test_other_utterances_and_padding_do_not_change_the_sum() -> None:
    torch.manual_seed(2)
    system = build().double().eval()
    data = batch(system)
    data.wav = data.wav.double()
    data.wav[1, int(data.wav_lens[1]) :] = 100.0  # what lies beyond the length is not heard
    positions = [9 + 3, 4 + 1]  # speech embeddings (flush included) and tokens
    alone = []
    for b in range(2):
        assert data.alignments is not None
        one = Batch(["x"], data.wav[b : b + 1], data.wav_lens[b : b + 1], [""], [data.alignments[b]])
        alone.append(float(system.loss(one)[0]) * positions[b])
    assert float(system.loss(data)[0]) == pytest.approx(sum(alone) / sum(positions), rel=1e-5)


def test_flush_reaches_the_next_period_and_adds_the_delay() -> None:
    system = build(delay=2)
    assert [system.flush_samples(s) for s in (0, 1, PERIOD - 1, PERIOD, PERIOD + 1)] == [
        2 * PERIOD,
        3 * PERIOD - 1,
        2 * PERIOD + 1,
        2 * PERIOD,
        3 * PERIOD - 1,
    ]
    assert build(delay=1, flush_periods=3).flush_samples(PERIOD) == 3 * PERIOD


def test_a_token_span_goes_back_by_the_delay() -> None:
    start, end = build(delay=2).token_span(torch.tensor([3, 0, 1]), torch.tensor([0, 2, 5]))
    assert start.tolist() == [0, 0, 3 * PERIOD] and end.tolist() == [PERIOD, PERIOD, 4 * PERIOD]


def test_a_token_lasts_its_duration() -> None:
    size = CharacterTokenizer.tiny().vocab_size
    system = build(token_durations=[0.1, 0.25, *[0.05] * (size - 2)])
    padding = -7
    start, end = system.token_span(torch.tensor([[1, 0, 2], [1, 0, padding]]), torch.tensor([[1, 4, 4], [5, 5, 0]]))
    assert (end - start).tolist() == [[PERIOD, 800, 400], [2000, 800, PERIOD]], "the first one begins with the stream"
    assert end.tolist() == [[PERIOD, 4 * PERIOD, 4 * PERIOD], [5 * PERIOD, 5 * PERIOD, PERIOD]]
    assert not any("token_samples" in name for name in system.state_dict()), "old checkpoints are still whole"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delay": -1}, "delay -1"),
        ({"delay": 2, "flush_periods": 1}, "flush_periods 1"),
        ({"adapter": StackingAdapter(input_dim=8, output_dim=16, stride=2)}, "widths do not fit"),
        ({"adapter": StackingAdapter(input_dim=16, output_dim=16, stride=3)}, r"0.16 s .* token period 0.12 s"),
        (
            {"decoder": LlamaDecoder(99, dim=16, layers=1, heads=2)},
            "decoder vocab_size 99 must be [0-9]+: the tokenizer's tokens, and BLANK",
        ),
        ({"interleaver": BlankInterleaver(blank_id=0)}, "blank_id 0 must be"),
        ({"spec_augment": {"time_mask": 2}}, "did you mean 'time_masks'"),
        ({"spec_augment": {"time_width": -1}}, "time_width is -1"),
        ({"frontend": LogMelFrontend(sample_rate=8000, mels=9)}, "input_dim 8"),
        ({"token_durations": [0.1]}, "token_durations must be [0-9]+ numbers above 0"),
        ({"token_durations": [0.0] * CharacterTokenizer.tiny().vocab_size}, "numbers above 0"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(**changes)


def test_unaligned_batches_are_refused() -> None:
    system = build()
    data = batch(system)
    data.alignments = None
    with pytest.raises(InputError, match="reallm align"):
        system.loss(data)
