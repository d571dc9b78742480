"""aed and decoder_only: the search steps through what training sees, finds the best text, and the loss is that of the definition."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.contract.system import audio, talkative
from reallm.errors import InputError
from reallm.registry import find
from reallm.systems._texts import between_ends
from reallm.types import Batch

NAMES = ["aed", "decoder_only"]


def text_log_probs(system: Any, wav: Tensor, texts: Tensor) -> Tensor:
    """(n, U + 1, V): of n texts (n, U) of one utterance (1, S), by the parallel pass that training uses."""
    lens, count = torch.tensor([wav.size(1)]), texts.size(0)
    ids = F.pad(texts, (1, 0), value=system.end_id)
    if type(system).component_name == "aed":
        enc, enc_lens = system.encode(*system.with_flush(wav, lens), None)
        logits = system.decoder(ids, system.decoder.remember(enc.expand(count, -1, -1), enc_lens.expand(count)))
    else:
        speech, speech_lens = system.adapter.forward(*system.encode(*system.with_flush(wav, lens), None))
        inputs = torch.cat([speech.expand(count, -1, -1), system.decoder.embed(ids)], dim=1)
        logits = system.decoder.forward(inputs, torch.full((count,), inputs.size(1)))[:, int(speech_lens) :]
    return torch.log_softmax(logits, dim=-1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_search_steps_through_what_training_sees(name: str) -> None:
    system = talkative(find("system", name))
    system.ctc_search_weight = 0.0
    wav, lens = audio(system)
    for beam in (1, 4):
        system.beam = beam
        found = system.recognize(wav, lens)
        assert int(found.lens.max()) > 2
        for row, length in enumerate(found.lens.tolist()):
            text = found.token_ids[row, :length]
            expected = text_log_probs(system, wav[row : row + 1, : int(lens[row])], text.unsqueeze(0))[0, :length]
            said = expected.gather(1, text.unsqueeze(1)).squeeze(1).float()
            torch.testing.assert_close(found.log_probs[row, :length], said, atol=1e-5, rtol=1e-5)
            if beam == 1:
                assert expected.argmax(1).tolist() == text.tolist(), "greedy"


def ctc_log_probs(system: Any, wav: Tensor, texts: Tensor) -> Tensor:
    """(n,): of n texts (n, U) of one utterance (1, S), all alignments summed, by torch's CTC loss."""
    enc, enc_lens = system.encode(*system.with_flush(wav, torch.tensor([wav.size(1)])), None)
    log_probs = torch.log_softmax(system.ctc_output(enc), dim=-1)[0].unsqueeze(1).expand(-1, len(texts), -1)
    lens = torch.full((len(texts),), texts.size(1))
    return -F.ctc_loss(log_probs, texts, enc_lens.expand(len(texts)), lens, blank=system.end_id, reduction="none")


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_texts(name: str, weight: float) -> None:
    system = talkative(find("system", name))
    system.ctc_search_weight = weight
    wav, size = audio(system)[0][:1, :640], system.end_id
    system.max_tokens_per_second = 25.0  # 80 ms: two tokens at most
    system.beam = 1 + size + size**2
    found = system.recognize(wav, torch.tensor([wav.size(1)]))
    best: dict[tuple[int, ...], float] = {}
    for length in range(3):
        texts = torch.tensor(list(itertools.product(range(size), repeat=length)), dtype=torch.int64)
        log_probs = text_log_probs(system, wav, texts).gather(2, F.pad(texts, (0, 1), value=size).unsqueeze(2))
        scores = log_probs.sum((1, 2))
        if weight:
            scores = (1 - weight) * scores + weight * ctc_log_probs(system, wav, texts)
        scores = scores / (length + 1)
        best[tuple(texts[int(scores.argmax())].tolist())] = float(scores.max())
    assert tuple(found.token_ids[0, : int(found.lens[0])].tolist()) == max(best, key=lambda text: best[text])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_loss_is_that_of_its_utterances(name: str) -> None:
    system = talkative(find("system", name))
    system.label_smoothing = 0.0
    wav, lens = audio(system)
    rows, texts = [0, 3], ["ab", "a"]
    texts = [text if all(c in system.tokenizer.decode(range(system.end_id)) for c in text) else "" for text in texts]
    tokens = [system.tokenizer.encode(text) for text in texts]
    assert max(map(len, tokens)) == 2
    batch = Batch(["a", "b"], wav[rows], lens[rows], texts)
    loss, stats = system.loss(batch)
    parts = []
    for row, ids in zip(rows, tokens, strict=True):
        log_probs = text_log_probs(system, wav[row : row + 1, : int(lens[row])], torch.tensor([ids]))[0]
        parts.append(F.nll_loss(log_probs.float(), torch.tensor([*ids, system.end_id]), reduction="sum"))
    expected = sum(parts) / sum(len(ids) + 1 for ids in tokens)
    torch.testing.assert_close(stats.get("loss_text", loss), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, 0.7 * stats["loss_text"] + 0.3 * stats["loss_ctc"])
    of_ctc = [
        -ctc_log_probs(system, wav[row : row + 1, : int(lens[row])], torch.tensor([ids]).view(1, -1))
        for row, ids in zip(rows, tokens, strict=True)
    ]
    torch.testing.assert_close(stats["loss_ctc"], sum(of_ctc).squeeze().float() / int(stats["targets"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_say_what_it_is_taught(name: str) -> None:
    torch.manual_seed(0)
    system: Any = find("system", name).tiny().train()
    system.label_smoothing = 0.0
    seconds = torch.arange(5000) / 8000
    wav = torch.stack([0.3 * torch.sin(2000 * step * seconds) for step in (1, 4)])
    lens = torch.tensor([5000, 4000])
    texts = ["ab", "bba"]
    optimizer = torch.optim.AdamW(system.parameters(), lr=0.005)
    for _ in range(120):
        optimizer.zero_grad()
        loss, _ = system.loss(Batch(["a", "b"], wav, lens, texts))
        loss.backward()
        optimizer.step()
    found = system.eval().recognize(wav, lens)
    assert [system.tokenizer.decode(row[: int(n)].tolist()) for row, n in zip(found.token_ids, found.lens, strict=True)] == texts
    assert not found.cap_hits.any()


class Heard(torch.nn.Module):
    """A CTC layer that is sure of these labels, whatever the encoder says."""

    def __init__(self, labels: list[int], size: int) -> None:
        super().__init__()
        self.labels, self.size = torch.tensor(labels), size

    def forward(self, enc: Tensor) -> Tensor:
        return 16 * F.one_hot(self.labels, self.size).double().expand(enc.size(0), -1, -1)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_ctc_keeps_a_decoder_that_does_not_listen_to_what_was_said(name: str) -> None:
    system = talkative(find("system", name))
    no, size = system.end_id, system.end_id + 1
    labels = [no, 7, 7, no, no, 3, no, 3, 3, no, 9, no]
    system.ctc_output, system.beam = Heard(labels, size), size  # a beam that asks CTC about every token
    system.encode = lambda wav, lens, chunk: (torch.zeros(len(wav), len(labels), 16).double(), torch.tensor([12, 5, 0]))
    wav = torch.zeros(3, 8000, dtype=torch.float64)
    for weight, heard in [(0.0, False), (0.95, True)]:
        system.ctc_search_weight = weight
        found = system.recognize(wav, torch.tensor([8000, 8000, 8000]))
        texts = [row[: int(n)].tolist() for row, n in zip(found.token_ids, found.lens, strict=True)]
        assert (texts == [[7, 3, 3, 9], [7], []]) == heard


def test_targets_lie_between_two_ends() -> None:
    inputs, targets = between_ends(torch.tensor([[5, 6, 7], [8, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0]), 9)
    assert inputs[:, 0].tolist() == [9, 9, 9]
    assert inputs[0].tolist() == [9, 5, 6, 7] and inputs[1, :2].tolist() == [9, 8]
    assert targets.tolist() == [[5, 6, 7, 9], [8, 9, -100, -100], [9, -100, -100, -100]]


@pytest.mark.parametrize("name", NAMES)
def test_a_system_without_ctc_has_no_layer_for_it(name: str) -> None:
    with_ctc = find("system", name).tiny()
    kwargs = {**with_ctc.component_spec.kwargs, "ctc_weight": 0.0, "ctc_search_weight": 0.0}
    system: Any = find("system", name)(**kwargs)
    assert system.ctc_output is None and not [name for name in system.state_dict() if "ctc" in name]
    with pytest.raises(InputError, match=r"ctc_weight 1\.0"):
        find("system", name)(**{**kwargs, "ctc_weight": 1.0})
    with pytest.raises(InputError, match=r"ctc_search_weight 0\.3: with ctc_weight 0 there is no CTC layer to ask"):
        find("system", name)(**{**kwargs, "ctc_search_weight": 0.3})
    with pytest.raises(InputError, match=r"ctc_search_weight -0\.1: choose a share"):
        find("system", name)(**{**with_ctc.component_spec.kwargs, "ctc_search_weight": -0.1})


@torch.no_grad()
def test_the_decoder_may_be_recurrent() -> None:
    tiny: Any = find("system", "decoder_only").tiny()
    kwargs = dict(tiny.component_spec.kwargs)
    lstm = find("decoder", "lstm")(vocab_size=tiny.end_id + 1, dim=16, layers=2)
    system: Any = find("system", "decoder_only")(**{**kwargs, "decoder": lstm}).double().eval()
    wav, lens = audio(system)
    found = system.recognize(wav, lens)
    assert found.exhausted is None
    for row in range(len(lens)):
        alone = system.recognize(wav[row : row + 1, : int(lens[row])], lens[row : row + 1])
        assert alone.token_ids[0, : int(alone.lens)].tolist() == found.token_ids[row, : int(found.lens[row])].tolist()


@torch.no_grad()
def test_speech_that_fills_the_capacity_is_told() -> None:
    system = talkative(find("system", "decoder_only"))
    system.beam = 1
    wav, lens = audio(system)
    whole = system.recognize(wav, lens)
    _, speech_lens = system.adapter.forward(*system.encode(*system.with_flush(wav, lens), None))
    system.decoder.capacity = int(speech_lens[3])  # no room for a text there
    found = system.recognize(wav, lens)
    assert found.exhausted.tolist() == [True, False, False, True, False]
    for row in (1, 2, 4):
        room = system.decoder.capacity - int(speech_lens[row]) - 1
        length = min(int(whole.lens[row]), room)
        assert found.token_ids[row, : int(found.lens[row])].tolist() == whole.token_ids[row, :length].tolist()
    assert found.cap_hits[4] == 1, "its text was cut"


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_texts_are_no_longer_than_the_audio_allows(name: str) -> None:
    system = talkative(find("system", name))
    system.beam, system.max_tokens_per_second = 1, 2.5
    wav, lens = audio(system)
    found = system.recognize(wav, lens)
    seconds = (lens + torch.tensor([system.flush_samples(n) for n in lens.tolist()])) / system.sample_rate
    assert (found.lens <= (2.5 * seconds).ceil()).all()
    assert found.cap_hits.any(), "some had more to say"
    with pytest.raises(InputError, match=r"max_tokens_per_second 0\.0: a text needs room"):
        type(system)(**{**system.component_spec.kwargs, "max_tokens_per_second": 0.0})


def test_a_decoder_that_cannot_read_what_begins_a_text_is_refused() -> None:
    tiny: Any = find("system", "decoder_only").tiny()
    tiny.decoder.reads_blank = False
    with pytest.raises(InputError, match=r"^system 'decoder_only', before each text, feeds BLANK, and decoder 'llama' has no"):
        find("system", "decoder_only")(**tiny.component_spec.kwargs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 99}, "decoder vocab_size 99 must be"),
        ({"dim": 32}, "widths do not fit"),
        ({"window": 7}, "decoder window 7: text could not attend to all of the speech: give window 0 and a capacity for both"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, int], words: str) -> None:
    tiny: Any = find("system", "decoder_only").tiny()
    sizes = {"vocab_size": tiny.end_id + 1, "dim": 16, "layers": 1, "heads": 2, **change}
    with pytest.raises(InputError, match=words):
        find("system", "decoder_only")(**{**tiny.component_spec.kwargs, "decoder": find("decoder", "llama")(**sizes)})
