"""The position in an epoch is what was consumed."""

from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from reallm.errors import InputError
from reallm.protocols import Tokenizer
from reallm.tokenizers.character import CharacterTokenizer
from reallm.training.batches import EpochBatches, refuse_transcripts
from tests.dummies.training import TinyData


def test_an_epoch_goes_on_with_equal_batches_whatever_was_drawn_between() -> None:
    batches = EpochBatches(TinyData(size=5), seed=1)
    batches.begin(epoch=2, consumed=0)
    whole = [batch.wav for batch in DataLoader(batches, batch_size=None)]
    assert len(whole) == len(batches) == 5
    torch.rand(7)
    batches.begin(epoch=2, consumed=3)
    rest = []
    for batch in DataLoader(batches, batch_size=None):
        rest.append(batch.wav)
        torch.rand(3)
    assert [torch.equal(one, other) for one, other in zip(rest, whole[3:], strict=True)] == [True, True]


def test_processes_take_turns_with_the_batches_that_one_would_take() -> None:
    data = TinyData(size=8)
    alone = list(EpochBatches(data, seed=1))
    taken = [list(EpochBatches(data, seed=1, rank=rank, processes=3)) for rank in range(3)]
    assert [len(mine) for mine in taken] == [2, 2, 2], "all take equally many"
    for number, batch in enumerate(alone[:6]):
        mine = taken[number % 3][number // 3]
        assert torch.equal(mine.wav, batch.wav), "what is drawn while a batch is made does not depend on who makes it"
    second = EpochBatches(data, seed=1, rank=2, processes=3)
    second.begin(epoch=1, consumed=1)
    assert [batch.ids for batch in second] == [alone[5].ids]


def test_an_epoch_that_is_consumed_loads_nothing() -> None:
    data = TinyData(size=5)
    batches = EpochBatches(data, seed=1)
    batches.begin(epoch=1, consumed=5)
    assert list(batches) == []
    assert data.served == []


class Transcribed(TinyData):
    def transcripts(self, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
        yield from [("a", "one two"), ("b", "zwölf 12")]


def test_a_character_that_the_tokenizer_does_not_know_is_found_before_training() -> None:
    with pytest.raises(InputError, match=r"utterance 'b': '1' .*'ö' .*'zwölf 12'.*: clean the transcript or train the tokenizer on it"):
        refuse_transcripts(Transcribed(), CharacterTokenizer.tiny())
    refuse_transcripts(Transcribed(), None)
    refuse_transcripts(TinyData(), CharacterTokenizer.tiny())
