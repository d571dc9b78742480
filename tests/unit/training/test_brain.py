"""The training loop on a tiny system."""

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reallm import device_memory
from reallm.device_memory import may_fit
from reallm.errors import InputError
from reallm.training.brain import TrainingBrain
from reallm.training.devices import check_device, own_device
from reallm.training.journal import Journal, read_journal
from reallm.training.schedules import WarmupCosine
from reallm.training.settings import TrainingSettings
from reallm.training.trainer import train
from reallm.types import Batch
from tests.dummies.host_reads import host_reads
from tests.dummies.training import TinyData, TinySystem, constant_validation

SETTINGS = TrainingSettings(
    epochs=2,
    optimizer=functools.partial(torch.optim.SGD, lr=0.5),
    schedule=WarmupCosine(warmup=1),
    checkpoint_every=0,
    log_every=1,
)


def run(exp: Path, settings: TrainingSettings = SETTINGS, system: Any = None, data: Any = None, **kwargs: Any) -> TinySystem:
    torch.manual_seed(0)
    exp.mkdir(exist_ok=True)
    system = system or TinySystem()
    train(system, settings, data or TinyData(size=4), exp, progressbar=False, **kwargs)
    return system


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def lines(exp: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_journal(exp) if line["kind"] == kind]


def test_the_loss_goes_down_and_is_written_down(tmp_path: Path) -> None:
    run(tmp_path, replace(SETTINGS, epochs=20))
    written = lines(tmp_path, "train")
    assert [line["update"] for line in written] == list(range(1, 81))
    assert written[-1]["loss"] < 0.7 * written[0]["loss"]
    assert {"epoch", "seconds", "lr", "grad_norm", "error"} <= written[0].keys()
    assert [line["lr"] for line in written[:2]] == [0.5, pytest.approx(0.5, rel=1e-3)]
    assert written[-1]["lr"] < 0.001
    assert list((tmp_path / "tensorboard").iterdir())


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path: Path) -> None:
    first = run(tmp_path / "a")
    assert equal(first, run(tmp_path / "b"))
    assert not equal(first, run(tmp_path / "c", replace(SETTINGS, seed=2)))


class Stop(Exception):
    pass


class StoppingSystem(TinySystem):
    """Raises in the middle of a run."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().loss(batch)


class DrawingData(TinyData):
    """Draws a number whenever it is begun, as torch's DataLoader does for its workers."""

    def loader(self, epoch: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        torch.rand(1)
        yield from super().loader(epoch, start, step)


@pytest.mark.parametrize("data", [TinyData(size=9), DrawingData(size=9, noise=0.0)], ids=["careless", "drawing"])
@pytest.mark.parametrize(("done", "first"), [(14, 4), (9, 0)], ids=["inside an epoch", "after an epoch"])
def test_a_run_goes_on_where_it_was_and_serves_no_batch_twice(tmp_path: Path, data: TinyData, done: int, first: int) -> None:
    settings = replace(SETTINGS, accumulate=2, checkpoint_every=1)
    whole = run(tmp_path / "whole", settings, data=data)
    torch.manual_seed(0)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", settings, system=StoppingSystem(done), data=data)
    data.served.clear()
    resumed = run(tmp_path / "stopped", settings, data=data)
    assert data.served == [(2, number) for number in range(first, 9)], "what was consumed is not served again"
    assert equal(resumed, whole)
    assert [line["loss"] for line in lines(tmp_path / "stopped", "train")] == [line["loss"] for line in lines(tmp_path / "whole", "train")]


def test_losses_are_read_only_where_they_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = TrainingBrain.on_fit_batch_end
    counts = []

    def counted(*arguments: Any) -> None:
        with host_reads() as reads:
            end(*arguments)
        counts.append(len(reads))

    run(tmp_path / "each")
    monkeypatch.setattr(TrainingBrain, "on_fit_batch_end", counted)
    run(tmp_path / "window", replace(SETTINGS, log_every=4))
    assert [bool(count) for count in counts] == [False, False, False, True] * 2
    each, window = (lines(tmp_path / name, "train") for name in ("each", "window"))
    for name in ("loss", "error"):
        means = [sum(line[name] for line in each[first : first + 4]) / 4 for first in (0, 4)]
        assert [line[name] for line in window] == pytest.approx(means, rel=1e-12)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "train_log.jsonl").read_text()
    data = TinyData(size=4)
    run(tmp_path, data=data)
    assert data.served == []
    assert (tmp_path / "train_log.jsonl").read_text() == before


class Halves(TinyData):
    """Each batch of the parent, of four rows, in two parts: of one row and of three."""

    def batches(self, epoch: int) -> int:
        return 2 * super().batches(epoch)

    def loader(self, epoch: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        for batch in super().loader(epoch, start // 2):
            for rows in (slice(0, 1), slice(1, 4)):
                yield Batch(batch.ids[rows], batch.wav[rows], batch.wav_lens[rows], batch.texts[rows])


class QuietData(TinyData):
    """Without noise of the process's generator."""

    def loader(self, epoch: int, start: int = 0, step: int = 1) -> Iterator[Batch]:
        for batch in super().loader(epoch, start, step):
            batch.wav = 0.1 * epoch * (1.0 + torch.arange(len(batch.ids))).unsqueeze(1).expand_as(batch.wav)
            yield batch


class QuietHalves(Halves, QuietData):
    pass


class QuietSystem(TinySystem):
    """Without randomness."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        loss = (self.head(torch.tanh(self.encoder(batch.wav[:, :-1, None]))).squeeze(-1) - batch.wav[:, 1:]).square().mean()
        return loss, {"targets": torch.tensor(batch.wav[:, 1:].numel())}


def test_accumulated_parts_equal_the_whole_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = run(tmp_path / "whole", system=QuietSystem(), data=QuietData(size=4, rows=4))
    torch.manual_seed(0)
    halves = run(tmp_path / "halves", replace(SETTINGS, accumulate=2), system=QuietSystem(), data=QuietHalves(size=4, rows=4))
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_all_parameters_is_clipped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = QuietSystem()
    before = torch.nn.utils.parameters_to_vector(system.parameters()).clone()
    run(tmp_path, replace(SETTINGS, epochs=1, max_grad_norm=1e-3), system=system, data=QuietData(size=1))
    moved = torch.nn.utils.parameters_to_vector(system.parameters()).detach() - before.detach()
    assert lines(tmp_path, "train")[0]["grad_norm"] > 1e-2
    assert float(moved.norm()) == pytest.approx(0.5 * 1e-3, rel=1e-2), "learning rate times the clipped norm, vectors too"


class OnceInfinite(TinySystem):
    """The third loss has an infinite gradient."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        loss, stats = super().loss(batch)
        return (loss * torch.inf if self.batches_seen == 3 else loss), stats


class TooLarge(TinySystem):
    """Runs out of memory at the third batch, as an accelerator does, or in fact."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        if self.batches_seen == 2:
            if self.error is not None:
                raise self.error
            torch.empty(2**60)
        return super().loss(batch)


@pytest.mark.parametrize(
    ("error", "key", "way"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "batch_seconds", "--override batch_seconds=3.0"),
        (None, None, "'max_duration' under 'data' in the configuration"),
    ],
    ids=["cuda", "cpu"],
)
def test_a_batch_that_does_not_fit_ends_with_a_size_that_may(
    tmp_path: Path, error: Exception | None, key: str | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "resident_memory", lambda: None)
    data = TinyData(size=4, more=2)
    data.max_duration = 9.0  # type: ignore[attr-defined]
    with pytest.raises(InputError) as said:
        run(tmp_path, system=TooLarge(error), data=data, batch_key=key)
    assert str(said.value) == (
        "not enough memory on cpu for a batch of 3 utterances, 6.0 seconds with padding (the largest that fitted had 10.0): make batches "
        f"of 3.0 seconds (half of it, a guess): {way} (now 9), with a larger 'accumulate' under 'training' for updates of the same size, "
        "in another --exp"
    )


def test_an_utterance_that_does_not_fit_alone_makes_no_smaller_batch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^not enough memory on cpu for utterance '1-2-0' of 2\.0 seconds, a batch of its own: leave "):
        run(tmp_path, system=TooLarge(None), data=TinyData(size=4, rows=1))


def test_what_earlier_batches_took_of_the_cpu_s_memory_says_how_large_one_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before and after a batch of 6 s and one of 10, which takes 1 GiB; then before the one that does not fit, and after.
    seen = iter([(2.0, 2.0), (2.0, 2.0), (2.0, 2.0), (2.0, 3.0), (2.0, 3.0), (2.5, 3.0)])
    free = iter([math.inf, 0.0])  # before training, and in the end
    monkeypatch.setattr(device_memory, "resident_memory", lambda: tuple(int(gib * 2**30) for gib in next(seen)))
    monkeypatch.setattr(device_memory, "free_memory", lambda: next(free))
    with pytest.raises(
        InputError, match=r"make batches of 4\.5 seconds \(an estimate: up to 0\.100 GiB a second, 0\.5 GiB beside the model\): "
    ):
        run(tmp_path, system=TooLarge(None), data=TinyData(size=4, more=2))
    seen = iter([(2.0, 2.0), (2.0, 2.0), (2.0, 2.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0)])
    free = iter([math.inf, 0.0])  # nothing is free: no estimate says that no batch fits
    with pytest.raises(InputError, match=r"make batches of 3\.0 seconds \(half of it, a guess\): "):
        run(tmp_path / "full", system=TooLarge(None), data=TinyData(size=4, more=2))


class TooHeavy(TinySystem):
    """Does not fit on the device."""

    def __init__(self, error: RuntimeError, frozen: bool = False) -> None:
        super().__init__()
        self.error = error
        self.large = torch.nn.Parameter(torch.empty(2**30, device="meta"), requires_grad=not frozen)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("frozen", "fix"), [(True, "set the decoder's dtype to bfloat16, which takes 2.0"), (False, "take a smaller model")]
)
def test_weights_that_do_not_fit_are_told_before_training(tmp_path: Path, frozen: bool, fix: str) -> None:
    heavy = TooHeavy(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB."), frozen)
    with pytest.raises(InputError, match=rf"not enough memory on cpu for the weights, 4\.0 GiB: {fix}"):
        run(tmp_path, system=heavy)
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, system=TooHeavy(RuntimeError("shapes")))


def test_gradients_and_averages_are_asked_for_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, adamw = TinySystem(), functools.partial(torch.optim.AdamW, lr=0.1)
    trained = 4 * sum(p.numel() for p in system.parameters())
    monkeypatch.setattr(device_memory, "free_memory", lambda: 3.0 * trained - 1)
    run(tmp_path / "sgd")
    with pytest.raises(
        InputError, match=r"not enough memory on cpu to train 0\.00 billion weights: .* 2 averages take .*: train fewer \(lora_rank"
    ):
        run(tmp_path / "adamw", replace(SETTINGS, optimizer=adamw))
    run(tmp_path / "frozen", replace(SETTINGS, optimizer=adamw, frozen=["encoder"]))
    monkeypatch.setattr(device_memory, "free_memory", lambda: 3.0 * trained)
    run(tmp_path / "fits", replace(SETTINGS, optimizer=adamw))


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, system=TooLarge(RuntimeError("shapes")))


def test_the_size_that_may_fit_is_estimated_from_what_others_took() -> None:
    assert may_fit(100.0, bytes_a_second=2.0, room=120.0) == pytest.approx(54.0), "what there is room for, less a tenth"
    assert may_fit(100.0, bytes_a_second=1.0, room=120.0) == pytest.approx(90.0), "less than what did not fit, in any case"


def test_a_gradient_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = run(tmp_path, system=OnceInfinite())
    assert all(bool(parameter.isfinite().all()) for parameter in system.parameters())
    assert system.batches_seen == 8


def test_bf16_trains_close_to_fp32(tmp_path: Path) -> None:
    run(tmp_path / "fp32")
    run(tmp_path / "bf16", replace(SETTINGS, precision="bf16"))
    full, half = (lines(tmp_path / name, "train") for name in ("fp32", "bf16"))
    assert full[-1]["loss"] != half[-1]["loss"]
    assert full[-1]["loss"] == pytest.approx(half[-1]["loss"], rel=0.05)


def test_validation_is_in_evaluation_mode_after_every_so_many_epochs_and_the_last(tmp_path: Path) -> None:
    run(tmp_path, replace(SETTINGS, epochs=5, validate_every=2), validate=constant_validation)
    assert [line["epoch"] for line in lines(tmp_path, "validation")] == [2, 4, 5]
    assert all(line["wer"] > 0 for line in lines(tmp_path, "validation"))


def test_an_epoch_must_have_a_whole_update(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer batches than an update takes"):
        run(tmp_path, replace(SETTINGS, accumulate=5))


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [("gpu", "fp32", "device 'gpu'"), ("cdua", "fp32", "did you mean 'cuda'"), ("cpu", "fp16", "needs an accelerator")],
)
def test_a_device_that_cannot_be_is_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_device(device, precision)


def test_each_process_needs_an_accelerator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device(None, processes=2) == "cuda"
    with pytest.raises(InputError, match=r"3 processes on this machine, which has 2 accelerators"):
        check_device(None, processes=3)
    with pytest.raises(InputError, match=r"device 'cuda:1': 2 processes take one accelerator each: --device cuda"):
        check_device("cuda:1", processes=2)
    assert check_device("cpu", processes=3) == "cpu"
    launched = {"RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert own_device(None) == "cuda:1"
    assert own_device("cpu") == "cpu"


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every update takes so long."""
    updates = {"done": 0}
    before = TrainingBrain.optimizers_step

    def slow(brain: TrainingBrain) -> None:
        updates["done"] += 1
        before(brain)

    monkeypatch.setattr(TrainingBrain, "optimizers_step", slow)
    monkeypatch.setattr(Journal, "seconds", lambda journal: seconds * updates["done"])


def test_training_ends_with_its_time_and_the_schedule_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, seconds=6)
    settings = replace(SETTINGS, epochs=50, minutes=1)
    run(tmp_path, settings, validate=constant_validation)
    written = lines(tmp_path, "train")
    assert [line["update"] for line in written] == list(range(1, 11)), "in the middle of an epoch of four"
    assert [line["lr"] for line in written] == pytest.approx([0.5 * WarmupCosine(warmup=1).factor(n, 10) for n in range(10)])
    assert lines(tmp_path, "validation")[-1]["update"] == 10
    run(tmp_path, settings)
    assert len(lines(tmp_path, "train")) == 10, "the time is over"


def test_enough_time_changes_nothing(tmp_path: Path) -> None:
    assert equal(run(tmp_path / "a"), run(tmp_path / "b", replace(SETTINGS, minutes=1000)))
    with pytest.raises(InputError, match="minutes is 0: above 0, or null"):
        replace(SETTINGS, minutes=0)
