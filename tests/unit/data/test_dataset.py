"""Batches are a function of (seed, epoch), wherever a run goes on."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse.cut import Cut
from lhotse.utils import fastcopy
from sentencepiece import SentencePieceTrainer

from reallm.aligners.corpus import align_cuts
from reallm.aligners.word_times import NoTeacher
from reallm.data.alignments import merge_supervisions, token_meta, with_token_alignment, with_words, words
from reallm.data.augmentation import AdditiveNoise, Chain, Equalizer, Gain
from reallm.data.cuts import read_cuts, text_of, write_cuts
from reallm.data.dataset import TrainingData, load_batch
from reallm.errors import InputError
from reallm.registry import find
from reallm.tokenizers.character import CharacterTokenizer
from reallm.types import Alignment, Batch
from tests.dummies.data import aligned_evenly, silent_cut, write_corpus

RATE = 8000
NOISY = Chain([Gain(), Equalizer(probability=0.7), AdditiveNoise(probability=0.7)])


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("digits"))


def make(path: Path, **kwargs: object) -> TrainingData:
    settings: dict[str, object] = {"sample_rate": RATE, "seed": 5, "max_duration": 6.0, "num_buckets": 2, "augmentation": NOISY}
    return TrainingData(path, **{**settings, **kwargs})  # type: ignore[arg-type]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.ids == y.ids and x.texts == y.texts and torch.equal(x.wav, y.wav) and torch.equal(x.wav_lens, y.wav_lens)
        for x, y in zip(a, b, strict=True)
    )


def test_batch(manifests: Path) -> None:
    cuts = list(read_cuts(manifests / "test.jsonl.gz"))
    batch = load_batch(cuts, RATE)
    assert batch.wav.shape == (6, int(batch.wav_lens.max())) and batch.wav.dtype == torch.float32
    assert batch.wav_lens.tolist() == [c.num_samples for c in cuts] and batch.wav_lens.dtype == torch.int64
    assert batch.ids == [c.id for c in cuts] and batch.alignments is None
    assert set(batch.speakers) <= {"ada", "bo"} and all(t for t in batch.texts)
    for row, cut in enumerate(cuts):
        np.testing.assert_array_equal(batch.wav[row, : cut.num_samples].numpy(), cut.load_audio()[0])
        assert not batch.wav[row, cut.num_samples :].any()


def test_every_string_of_the_epoch_once(manifests: Path) -> None:
    data = make(manifests / "train.jsonl.gz")
    for epoch, stored in ((0, 0), (1, 1), (2, 0)):
        batches = list(data.loader(epoch))
        assert sorted(i for b in batches for i in b.ids) == [f"train-{stored:03d}-{i:05d}" for i in range(12)]
        assert len(batches) == data.batches(epoch) > 1
    assert [b.ids for b in data.loader(0)] != [b.ids for b in data.loader(2)]


def test_resumed_is_the_same_for_any_number_of_workers(manifests: Path) -> None:
    whole = list(make(manifests / "train.jsonl.gz").loader(1))
    assert same(whole, list(make(manifests / "train.jsonl.gz").loader(1)))
    assert same(whole[2:], list(make(manifests / "train.jsonl.gz").loader(1, start=2)))
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(whole[1:], list(make(manifests / "train.jsonl.gz", num_workers=2).loader(1, start=1)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_input_is_one_line_from_a_worker_too(manifests: Path, num_workers: int) -> None:
    data = make(manifests / "train.jsonl.gz", tokenizer="words", num_workers=num_workers)
    with pytest.raises(InputError) as raised:
        list(data.loader(0))
    assert re.fullmatch(r"cut 'train-000-\d+' has no token alignment: run `reallm align` on its manifest first", str(raised.value))


def rows(batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    return {name: b.wav[row, : int(b.wav_lens[row])] for b in batches for row, name in enumerate(b.ids)}


def test_seed_and_epoch_decide_order_and_augmentation(manifests: Path) -> None:
    first, seeded = list(make(manifests / "train.jsonl.gz").loader(0)), list(make(manifests / "train.jsonl.gz", seed=6).loader(0))
    again = list(make(manifests / "train.jsonl.gz").loader(2))  # the same strings
    for other in (seeded, again):
        assert [b.ids for b in first] != [b.ids for b in other]
        assert sum(torch.equal(wav, rows(other)[name]) for name, wav in rows(first).items()) < 3  # a share is not augmented


def test_skipped_audio_is_not_loaded(manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import reallm.data.dataset as module

    loaded: list[str] = []

    def watched(cut: Cut, sample_rate: int) -> np.ndarray:
        loaded.append(cut.id)
        return np.zeros(8, dtype=np.float32)

    monkeypatch.setattr(module, "load_audio", watched)
    data = make(manifests / "train.jsonl.gz")
    rest = list(data.loader(0, start=data.batches(0) - 1))
    assert len(rest) == 1 and loaded == rest[0].ids


def test_training_cannot_reach_the_truth(manifests: Path, tmp_path: Path) -> None:
    cuts = read_cuts(manifests / "train.jsonl.gz")
    assert all(words(c) for c in cuts)
    write_cuts((with_words(c, []) for c in cuts), tmp_path / "stripped.jsonl.gz")
    assert not any(words(c) for c in read_cuts(tmp_path / "stripped.jsonl.gz"))
    with_truth = list(make(manifests / "train.jsonl.gz").loader(0))
    assert same(with_truth, list(make(tmp_path / "stripped.jsonl.gz").loader(0)))
    assert all(b.alignments is None for b in with_truth)


def align(cut: Cut, tokenizer: str = "abc") -> Cut:
    alignment = Alignment(torch.tensor([1, 2]), torch.tensor([8, 80]), torch.tensor([16, 160]), torch.zeros(2).double(), RATE)
    return with_token_alignment(cut, alignment, ["x", "y"], {"tokenizer": tokenizer, "backend": "torch", "version": "1"})


def test_alignments_of_the_right_tokenizer(manifests: Path) -> None:
    plain = list(read_cuts(manifests / "dev.jsonl.gz"))
    cuts = [align(c) for c in plain]
    for tokenizer in ("abc", None):
        batch = load_batch(cuts, RATE, tokenizer)
        assert batch.alignments is not None and len(batch.alignments) == len(cuts)
        assert batch.alignments[0].end_samples.tolist() == [16, 160]
    with pytest.raises(InputError, match="aligned with tokenizer abc, not with other"):
        load_batch(cuts, RATE, "other")
    with pytest.raises(InputError, match="has no token alignment"):
        load_batch([cuts[0], plain[1]], RATE, "abc")
    assert load_batch([cuts[0], plain[1]], RATE).alignments is None


def test_transcripts_are_known_before_training(manifests: Path, tmp_path: Path) -> None:
    cuts = list(read_cuts(manifests / "train.jsonl.gz"))
    tokenizer = CharacterTokenizer.train(map(text_of, cuts), tmp_path / "characters.json")
    assert list(make(manifests / "train.jsonl.gz").transcripts(tokenizer)) == [(c.id, text_of(c)) for c in cuts]
    write_cuts([*aligned_evenly(cuts[:-1], tokenizer), cuts[-1]], tmp_path / "all-but-one.jsonl.gz")
    with pytest.raises(InputError, match=f"cut '{cuts[-1].id}' has no token alignment"):
        list(make(tmp_path / "all-but-one.jsonl.gz", tokenizer=tokenizer.fingerprint).transcripts(tokenizer))
    with pytest.raises(InputError, match=f"cut '{cuts[0].id}' was aligned with tokenizer {tokenizer.fingerprint}, not with other"):
        list(make(tmp_path / "all-but-one.jsonl.gz", tokenizer="other").transcripts(tokenizer))


@pytest.mark.parametrize("text", ["a lazy dog", "the fox jump", "The Fox jumps", "der Füchse", ""])
def test_a_transcript_that_was_changed_since_it_was_aligned(text: str, tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer.tiny(tmp_path)
    first, second = aligned_evenly(
        [silent_cut(tmp_path, "a", 2, "the fox jumps"), silent_cut(tmp_path, "b", 2, "the fox jumps")], tokenizer
    )
    second.supervisions[0].text = text
    write_cuts([first, second], tmp_path / "cuts.jsonl.gz")
    with pytest.raises(InputError) as raised:
        list(make(tmp_path / "cuts.jsonl.gz", tokenizer=tokenizer.fingerprint).transcripts(tokenizer))
    assert str(raised.value) == f"cut 'b' says {text!r}, and was aligned as 'the fox jumps': run `reallm align` on its manifest again"
    assert len(list(make(tmp_path / "cuts.jsonl.gz").transcripts(tokenizer))) == 2, "who needs no alignment may have another"


SAID = "THE  Ärzte saw 3 naïve FIsh "


def tokenizers(folder: Path) -> dict[str, Any]:
    """Of each kind, and one that changes texts."""
    plain = " ".join(SAID.split())
    sentencepiece = find("tokenizer", "sentencepiece")
    options = {"model_type": "unigram", "vocab_size": 19, "hard_vocab_limit": False, "minloglevel": 2}
    with (folder / "folding.model").open("wb") as file:  # the normalization that many published models have: "fi" of the ligature, no case
        SentencePieceTrainer.train(sentence_iterator=iter([plain] * 9), model_writer=file, normalization_rule_name="nmt_nfkc_cf", **options)
    return {
        "character": find("tokenizer", "character").train([SAID], folder / "characters.json"),
        "word": find("tokenizer", "word").train([SAID], folder / "words.json"),
        "sentencepiece": sentencepiece.train([SAID] * 9, folder / "pieces.model", vocab_size=20),
        "bytes": sentencepiece.tiny(folder),
        "byte-level": find("tokenizer", "huggingface").tiny(folder),
        "folding": sentencepiece(folder / "folding.model"),
    }


@pytest.mark.parametrize("name", ["character", "word", "sentencepiece", "bytes", "byte-level", "folding"])
def test_transcripts_fit_what_alignment_and_lhotse_make_of_them(name: str, tmp_path: Path) -> None:
    tokenizer, other = tokenizers(tmp_path)[name], tokenizers(tmp_path)["character"]
    cuts = [silent_cut(tmp_path, name, 4, SAID) for name in ("a", "b")]
    words = SAID.casefold().replace("3", "<unk>").split()
    (tmp_path / "times.ctm").write_text("".join(f"{cut.id} 1 {n / 2} 0.4 {word}\n" for cut in cuts for n, word in enumerate(words)))
    times = find("aligner", "ctm")(tmp_path / "times.ctm")
    aligned, found = align_cuts(cuts, NoTeacher(tokenizer, RATE), times, {"tokenizer": "it"})
    assert not found.failures
    if name != "folding":  # whose text is another one: nothing is carried to it
        carried, _ = align_cuts(cuts, NoTeacher(other, RATE), times, {"tokenizer": "it"}, tokenizer=tokenizer)
        assert [cut.supervisions[0].custom["token_ids"] for cut in carried] == [cut.supervisions[0].custom["token_ids"] for cut in aligned]
        aligned += carried
    a, b = aligned[0], fastcopy(aligned[1], id="other")
    changed = [
        *aligned,
        a.perturb_speed(0.9),
        a.append(b).pad(12.0),
        merge_supervisions(a.append(b)),
        a.truncate(offset=0.7, duration=1.0),
        a.mix(b, offset_other_by=0.5),
    ]
    write_cuts(changed, tmp_path / "cuts.jsonl.gz")
    data = make(tmp_path / "cuts.jsonl.gz", tokenizer=token_meta(a)["tokenizer"])
    assert len(list(data.transcripts(tokenizer))) == len(changed) + 2


def test_manifests_that_cannot_be_trained_on(manifests: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the data stage first"):
        make(tmp_path / "none.jsonl.gz")
    write_cuts([], tmp_path / "empty.jsonl.gz")
    with pytest.raises(InputError, match="holds no cuts"):
        make(tmp_path / "empty.jsonl.gz")
    mixed = [*read_cuts(manifests / "train.jsonl.gz"), *read_cuts(manifests / "dev.jsonl.gz")]
    write_cuts(mixed, tmp_path / "mixed.jsonl.gz")
    with pytest.raises(InputError, match="with and without a custom field 'epoch'"):
        make(tmp_path / "mixed.jsonl.gz")


@pytest.mark.parametrize(("name", "value"), [("max_duration", 0.0), ("num_buckets", 0), ("num_workers", -1)])
def test_numbers_out_of_range(manifests: Path, name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        make(manifests / "train.jsonl.gz", **{name: value})


def test_cuts_without_an_epoch_are_in_every_epoch(manifests: Path) -> None:
    data = make(manifests / "dev.jsonl.gz")
    for epoch in range(3):
        assert len({i for b in data.loader(epoch) for i in b.ids}) == 4


def test_loading_is_fast(manifests: Path) -> None:
    """24 strings in well under 100 ms of one core: an optimizer step on two cores takes a few hundred."""
    cuts = (list(read_cuts(manifests / "train.jsonl.gz")))[:24]
    load_batch(cuts, RATE)
    best = min(_seconds(cuts) for _ in range(5))
    assert best < 0.1


def _seconds(cuts: list[Cut]) -> float:
    start = time.process_time()
    load_batch(cuts, RATE)
    return time.process_time() - start
