"""A step makes the host wait for nothing; what the host looks at on a processor only saves work."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from reallm.contract.system import audio
from reallm.decoders.llama import LlamaDecoder
from reallm.errors import InputError
from reallm.streaming.host import may_end, may_look, nobody_ends, require_all
from reallm.streaming.readback import Rows
from tests.dummies.component_systems import COMPONENTS, system_with
from tests.dummies.engine_systems import talkative_system
from tests.dummies.host_reads import host_reads
from tests.dummies.imagined_device import imagined_step

WAITING = {"beam", "speculative_greedy"}  # searchers whose way hangs on numbers
BOUNDED = ["speech_reallm", "transducer", "ctc", "delays"]


@pytest.mark.filterwarnings("ignore")  # of storages that are not there
@pytest.mark.parametrize(("kind", "name"), [one for one in COMPONENTS if one[1] not in WAITING])
def test_a_step_on_an_accelerator_waits_for_nothing(kind: str, name: str, tmp_path: Path) -> None:
    system = system_with(kind, name, tmp_path).eval()
    system.searcher.positions = 4
    emission = imagined_step(system)
    assert emission.token_ids.shape == (3, 4) and emission.token_ids.device.type == "cuda"


@pytest.mark.parametrize("which", ["delays", "ctc"])
def test_so_do_systems(which: str) -> None:
    system = talkative_system(which)
    if which != "ctc":
        system.searcher.positions = 4
    assert imagined_step(system).lens.device.type == "cuda"


def test_a_search_until_all_rows_are_done_does_wait() -> None:
    with pytest.raises(DataDependentOutputException):
        imagined_step(talkative_system("speech_reallm"))


@pytest.mark.parametrize("which", BOUNDED)
def test_without_looking_the_answers_are_the_same_and_nothing_is_read(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system = talkative_system(which)
    if which != "ctc":
        system.searcher.positions = 4
    wav, _ = audio(system)
    size, found = system.chunk_samples, []
    for looks in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda looks=looks: not looks)
        state, said = system.init_state(5), []
        for number in range(6):
            lens = torch.tensor([size, 0, size // 2, size, size]) * (number < 2)
            final = torch.tensor([False, False, True, False, False]) & (number == 0)
            with host_reads() as reads:
                emission, state = system.step(wav[:, number % 2 * size :][:, :size].float(), lens, final, state)
            assert looks or reads == []
            rows = Rows(emission, system)
            said += [[[(token.token_id, token.start_samples) for token in rows.tokens(row)] for row in range(5)]]
        found.append(said)
    assert found[0] == found[1] and sum(len(row) for said in found[0] for row in said) > 5


def test_who_knows_that_no_row_ends_may_say_so() -> None:
    nobody, somebody = torch.tensor([False, False]), torch.tensor([False, True])
    assert may_look(nobody) and not may_end(nobody) and may_end(somebody)
    elsewhere = nobody.to("meta")
    assert not may_look(elsewhere) and may_end(elsewhere)
    with nobody_ends():
        assert not may_end(elsewhere) and may_end(somebody), "where the host may look it believes what it sees"
        with pytest.raises(KeyError), nobody_ends():
            raise KeyError
        assert not may_end(elsewhere)
    assert may_end(elsewhere)


def test_what_must_be_true_is_asked_where_that_costs_nothing() -> None:
    require_all(torch.tensor([True, True]), "wrong")
    with pytest.raises(InputError, match=r"^wrong$"):
        require_all(torch.tensor([True, False]), "wrong")
    require_all(torch.tensor([True, False]).to("meta"), "an accelerator's own assertion, which is not waited for")
    decoder: Any = LlamaDecoder(vocab_size=5, dim=8, layers=1, heads=2, window=0, capacity=1)
    active, x, state = torch.tensor([True]), torch.zeros(1, 8), decoder.init_state(1)
    _, state = decoder.step(x, active, state)
    decoder.step(x, ~active, state)
    with pytest.raises(InputError, match="longer than the 1 positions of full attention"):
        decoder.step(x, active, state)
