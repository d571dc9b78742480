"""Parts of a system that are not trained."""

import functools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.training.brain import TrainingBrain
from reallm.training.checkpoints import load_weights
from reallm.training.experiment import run_training
from reallm.training.schedules import WarmupCosine
from reallm.training.settings import TrainingSettings
from reallm.training.trainer import train
from reallm.types import Batch
from tests.dummies.training import TinyData, TinySystem

SETTINGS = TrainingSettings(
    epochs=2,
    optimizer=functools.partial(torch.optim.AdamW, lr=0.1),
    schedule=WarmupCosine(warmup=1),
    checkpoint_every=1,
    log_every=1,
    frozen=["encoder"],
)


class Stop(Exception):
    pass


class Watched(TinySystem):
    """Its encoder has dropout and batch statistics; it notes in which mode its parts are, and what is kept for the backward pass."""

    def __init__(self, stop_after: int = 1000) -> None:
        super().__init__(dropout=0.5)
        self.encoder.append(nn.BatchNorm1d(31))
        self.left = stop_after
        self.modes: set[tuple[bool, ...]] = set()
        self.encoder.register_forward_hook(self._note)

    def _note(self, encoder: nn.Module, given: Any, out: Tensor) -> None:
        self.modes.add((self.training, self.head.training, *(part.training for part in encoder.modules()), out.requires_grad))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().loss(batch)


class OtherTeacher(TinySystem):
    """Of whose encoder the first layer fits a TinySystem."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder[3] = nn.Linear(8, 6)
        self.head = nn.Linear(6, 1)


def run(exp: Path, system: TinySystem) -> dict[str, Tensor]:
    """The weights that it begins with; it is trained then."""
    torch.manual_seed(0)
    fresh = type(system)()
    system.load_state_dict(fresh.state_dict())
    begun = {name: value.clone() for name, value in system.state_dict().items()}
    exp.mkdir(exist_ok=True)
    train(system, SETTINGS, TinyData(size=4), exp, progressbar=False)
    return begun


def test_a_frozen_part_stays_as_it_is_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brains: list[TrainingBrain] = []
    end = TrainingBrain.on_stage_end
    monkeypatch.setattr(TrainingBrain, "on_stage_end", lambda self, *given: (brains.append(self), end(self, *given))[1])
    system = Watched()
    begun = run(tmp_path, system)
    for weights in (system.state_dict(), load_weights(tmp_path, 3)):
        same = {name for name, value in weights.items() if torch.equal(value, begun[name])}
        assert same == {name for name in begun if name.startswith("encoder.")}, "and its batch statistics"
    held = {id(parameter) for group in brains[0].optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in system.head.parameters()}
    assert all(parameter.grad is None for parameter in system.encoder.parameters())
    assert system.modes == {(True, True, *[False] * 6, False)}, "no dropout, and nothing to go back through"


def test_a_run_with_a_frozen_part_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, stopped, resumed = Watched(), Watched(stop_after=6), Watched()
    run(tmp_path / "whole", whole)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", stopped)
    run(tmp_path / "stopped", resumed)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def run_held(exp: Path, system: TinySystem, updates: int = 3) -> list[tuple[bool, bool]]:
    """After each update of six, whether the encoder is as it was, and whether the head is."""
    torch.manual_seed(0)
    system.load_state_dict(type(system)().state_dict())
    begun = {name: value.clone() for name, value in system.state_dict().items()}
    exp.mkdir(exist_ok=True)
    found: list[tuple[bool, bool]] = []

    def note(brain: TrainingBrain) -> None:
        step(brain)
        now = system.state_dict()
        same = [all(torch.equal(now[n], begun[n]) for n in now if n.startswith(part)) for part in ("encoder.", "head.")]
        found.append((same[0], same[1]))

    step = TrainingBrain.optimizers_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingBrain, "optimizers_step", note)
        train(system, replace(SETTINGS, frozen_updates=updates), TinyData(size=4), exp, progressbar=False)
    return found


def test_a_part_that_is_frozen_for_some_updates_is_trained_after_them(tmp_path: Path) -> None:
    system = Watched()
    found = run_held(tmp_path, system)
    assert found == [(True, False)] * 3 + [(False, False)] * 5
    asleep, awake = (True, True, *[False] * 6, True), (True, True, *[True] * 6, True)
    assert system.modes == {asleep, awake}, "no dropout and no batch statistics at first, in the middle of an epoch too"
    assert run_held(tmp_path / "never", TinySystem(), 0)[0] == (False, False)


def test_what_is_new_in_a_part_is_trained_from_the_first_update_on(tmp_path: Path) -> None:
    """An encoder with one layer of a teacher, and batch statistics and dropout on top of it that the teacher has not."""
    system = Watched()
    names = [name for name, _ in system.named_parameters() if name.startswith("encoder.")]
    taken, new = [n for n in names if n.startswith("encoder.0.")], [n for n in names if not n.startswith("encoder.0.")]
    assert taken and new
    torch.manual_seed(0)
    begun = {name: value.clone() for name, value in system.state_dict().items()}
    same: list[dict[str, bool]] = []
    step = TrainingBrain.optimizers_step

    def note(brain: TrainingBrain) -> None:
        step(brain)
        same.append({name: torch.equal(value, begun[name]) for name, value in system.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingBrain, "optimizers_step", note)
        train(system, replace(SETTINGS, frozen_updates=2), TinyData(size=4), tmp_path, progressbar=False, taken=taken)
    for update, unchanged in enumerate(same[:3]):
        assert {unchanged[name] for name in taken} == {update < 2}
        assert not any(unchanged[name] for name in new)
    parts = dict(system.encoder.named_children())
    asleep = tuple(name != "0" for name, part in parts.items() for _ in part.modules())
    assert {modes[3:-1] for modes in system.modes} == {asleep, (True,) * len(asleep)}


def test_what_init_gives_is_what_is_held(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A teacher whose encoder's second layer is of another shape, one with all of it, and one that gives nothing of it."""
    conf, other = tmp_path / "conf.yaml", tmp_path / "other.yaml"
    text = CONFIG.replace("FROZEN", "[encoder]\n    frozen_updates: 1")
    conf.write_text(text)
    other.write_text(text.replace("tests.dummies.training.TinySystem", "tests.unit.training.test_frozen.OtherTeacher"))
    for teacher, of in ((tmp_path / "teacher", conf), (tmp_path / "unlike", other)):
        run_training(of, teacher, device="cpu", progressbar=False)
    seen: list[set[str]] = []
    begin = TrainingBrain.on_fit_start

    def note(brain: TrainingBrain) -> None:
        held = {id(parameter) for parameter in brain.held.parameters}
        seen.append({name for name, parameter in brain.system.named_parameters() if id(parameter) in held})
        begin(brain)

    def student(name: str, init: str | None, parts: list[str]) -> None:
        run_training(conf, tmp_path / name, init=tmp_path / init if init else None, init_parts=parts, device="cpu", progressbar=False)

    whole = {name for name, _ in TinySystem().named_parameters() if name.startswith("encoder.")}
    first = {"encoder.0.weight", "encoder.0.bias"}
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(TrainingBrain, "on_fit_start", note)
        for name, init, parts, held in (
            ("alone", None, [], whole),
            ("all", "teacher", [], whole),
            ("some", "unlike", [], first),
            ("some", "unlike", [], first),  # once more: it goes on
            ("head", "teacher", ["head"], whole),
        ):
            student(name, init, parts)
            assert seen[-1] == held, name
    assert "encoder: 2 of 4 weights are frozen for the first 1 updates" in caplog.text
    assert "encoder: 4 of 4 weights are frozen for the first 1 updates" in caplog.text


def test_what_is_frozen_for_some_updates_is_trained_as_by_an_optimizer_that_had_not_seen_it(tmp_path: Path) -> None:
    """No moments of thrown away gradients are kept."""
    system, brains = TinySystem(), []
    step = TrainingBrain.optimizers_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingBrain, "optimizers_step", lambda brain: (step(brain), brains.append(len(brain.optimizer.state)))[0])
        train(system, replace(SETTINGS, frozen_updates=2), TinyData(size=4), tmp_path, progressbar=False)
    parameters = [len(list(part.parameters())) for part in (system.head, system)]
    assert brains[:3] == [parameters[0], parameters[0], parameters[1]]


def test_a_run_with_a_part_that_is_frozen_at_first_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = Watched()
    run_held(tmp_path / "whole", whole)
    for stop_after in (2, 5):
        stopped, resumed = Watched(stop_after), Watched()
        with pytest.raises(Stop):
            run_held(tmp_path / str(stop_after), stopped)
        run_held(tmp_path / str(stop_after), resumed)
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_updates_of_nothing() -> None:
    with pytest.raises(InputError, match=r"frozen_updates is 5, of no part: name some in frozen, such as \[encoder\]"):
        replace(SETTINGS, frozen=[], frozen_updates=5)
    with pytest.raises(InputError, match="frozen_updates"):
        replace(SETTINGS, frozen_updates=-1)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (["encodr"], r"frozen has 'encodr' \(did you mean 'encoder'\?\): the system's parts with weights are encoder, head"),
        (["encoder", "head"], "frozen is encoder, head: nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen(frozen: Any, message: str, tmp_path: Path) -> None:
    conf = tmp_path / "conf.yaml"
    conf.write_text(CONFIG.replace("FROZEN", str(frozen)))
    with pytest.raises(InputError, match=message):
        run_training(conf, tmp_path / "exp", device="cpu", progressbar=False)
    assert not (tmp_path / "exp").exists()
    with pytest.raises(InputError, match=r"frozen is 'encoder': a list of names, such as \[encoder\]"):
        replace(SETTINGS, frozen="encoder")


CONFIG = """
system: !new:tests.dummies.training.TinySystem
data: !new:tests.dummies.training.TinyData
    size: 2
training: !new:reallm.training.settings.TrainingSettings
    epochs: 1
    average: 1
    frozen: FROZEN
    optimizer: !name:torch.optim.AdamW
        lr: 0.01
    schedule: !new:reallm.training.schedules.WarmupCosine
        warmup: 1
"""


def test_a_frozen_part_with_weights_that_nobody_trained_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    conf, first, second = tmp_path / "conf.yaml", tmp_path / "first", tmp_path / "second"
    conf.write_text(CONFIG.replace("FROZEN", "[encoder]"))
    told = "the frozen encoder keeps the weights that it was built with: they are not all in --init"
    with caplog.at_level(logging.WARNING):
        run_training(conf, first, device="cpu", progressbar=False)
        assert told in caplog.text
        caplog.clear()
        run_training(conf, second, init=first, device="cpu", progressbar=False)
        assert told not in caplog.text
        conf.write_text(CONFIG.replace("FROZEN", "[encoder]\n    frozen_updates: 1"))
        run_training(conf, tmp_path / "third", device="cpu", progressbar=False)
    assert told not in caplog.text, "it is trained in the end"
