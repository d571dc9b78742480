"""An experiment folder from the outside: train in it, read a trained system out of it.

EXP/config.yaml      the resolved configuration, which decoding reads
EXP/origin.json      see origin.py
EXP/checkpoints/     see checkpoints.py
EXP/train_log.jsonl  see journal.py        EXP/tensorboard/
EXP/train.log        messages
"""

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import ddp_barrier
from torch import Tensor

from reallm.config import Config, override_key
from reallm.config import load as load_config
from reallm.errors import InputError, nearest
from reallm.protocols import System
from reallm.training.batches import TrainingSource, refuse_transcripts
from reallm.training.checkpoints import disk_full, load_weights, newest_whole
from reallm.training.devices import own_device
from reallm.training.frozen import frozen_parts, held_at_first
from reallm.training.initialize import fit_frontend, fitting, parts_of, stored_weights, take_weights
from reallm.training.origin import Origin
from reallm.training.processes import joined, rank, world_size
from reallm.training.randomness import seed_position
from reallm.training.settings import TrainingSettings
from reallm.training.trainer import TrainingResult, train
from reallm.training.validation import StreamingValidation

CONFIG_NAME = "config.yaml"

logger = logging.getLogger(__name__)


def read_config(exp: Path) -> Config:
    """The configuration that an experiment was trained with. Raises InputError when there is none."""
    return Config.read(Path(exp) / CONFIG_NAME)


def load_trained(exp: Path, average: int | None = None) -> System:
    """The trained system of an experiment, on the CPU, in evaluation mode. Builds nothing else of its configuration.

    Args:
        average: how many of the last checkpoints are averaged; None = as the configuration says.

    Raises InputError when there is no configuration or no whole checkpoint.
    """
    config = read_config(exp)
    weights = load_weights(exp, average)
    system = config.build("system")["system"]
    system.load_state_dict(weights)
    trained: System = system.eval()
    return trained


def run_training(
    conf: Path,
    exp: Path,
    overrides: Sequence[str] = (),
    init: Path | None = None,
    device: str | None = None,
    progressbar: bool = True,
    init_parts: Sequence[str] = (),
) -> TrainingResult:
    """Train what a configuration describes in the folder ``exp``, or go on there, together with the processes that a launcher started.

    Args:
        conf: see egs/TEMPLATE and reallm.config.TRAINING_KEYS.
        overrides: ``key=value`` each.
        init: a bundle or experiment whose weights are taken over where name and shape are equal; a run that goes on
            has weights of its own, and the option must be the same.
        device: "cpu" or "cuda"; None = an accelerator if there is one.
        init_parts: take over of ``init`` only these parts, such as ``encoder``; none named: all.

    Raises InputError for a wrong configuration, missing data, a configuration, training data or ``init`` that differ from
    what ``exp`` was begun with, another number of processes, and when others train in ``exp``; ``exp`` stays as it was then.
    """
    with joined(own_device(device)):
        return _run(conf, Path(exp), overrides, None if init is None else Path(init), init_parts, device, progressbar)


def _run(
    conf: Path, exp: Path, overrides: Sequence[str], init: Path | None, init_parts: Sequence[str], device: str | None, progressbar: bool
) -> TrainingResult:
    if init is None and init_parts:
        raise InputError(f"--init-part {' '.join(init_parts)}: of which --init? Name it, or leave --init-part away")
    config = load_config(conf, overrides)
    for key in ("system", "training", "data"):
        if config.value(key) is None:
            raise InputError(f"{config.file}: no key '{key}'{nearest(key, config.keys())}: training needs it")
    seed = int(config.value("training", "seed", default=1))
    seed_position(seed, "weights")
    built = config.build()
    system, settings, source = built["system"], built["training"], built["data"]
    if not isinstance(settings, TrainingSettings):
        raise InputError(
            f"{config.file}: training is a {type(settings).__name__}: it must be !new:reallm.training.settings.TrainingSettings"
        )
    frozen_parts(system, settings.frozen)  # before the folder is begun
    chosen = own_device(device, settings.precision)
    batch_key = override_key(conf, overrides, "data", "max_duration")
    weights = parts_of(stored_weights(init), init_parts) if init is not None else None
    taken = fitting(system, weights or {})
    if rank() > 0:
        weights = None  # those of the first process are given to all
        ddp_barrier()  # until the first process has begun the folder, or refused to
        return train(system, settings, source, exp, device=chosen, progressbar=False, batch_key=batch_key, taken=taken)
    dev = Path(built["dev"]) if built.get("dev") else None
    if dev is not None and not dev.is_file():
        raise InputError(f"no manifest {dev}: run the data stage first, or name another file with --dev")
    refuse_transcripts(source, getattr(system, "tokenizer", None))
    origin = Origin.of(init, weights, source, world_size())
    with _folder(exp):
        if newest_whole(exp / "checkpoints") is None:
            origin.begin(exp)
            _initialize(system, weights, source, seed, settings.frozen if settings.frozen_updates is None else ())
            origin.write(exp)
            _tell_held(system, settings, taken)
            config.dump(exp / CONFIG_NAME)
        else:
            difference = config.difference(read_config(exp))
            if difference:
                raise InputError(f"{exp} was begun with another configuration ({difference}): name another --exp, or remove {exp}")
            origin.resume(exp)
        ddp_barrier()
        validate = StreamingValidation(dev, settings.validate_utterances) if dev is not None else None
        return train(system, settings, source, exp, validate, chosen, progressbar, batch_key, taken)


def _initialize(system: Any, weights: dict[str, Tensor] | None, source: TrainingSource, seed: int, frozen: Sequence[str]) -> None:
    """What happens before the first update, equally each time."""
    taken = take_weights(system, weights) if weights is not None else None
    if taken is not None:
        logger.info("%s", taken)
        if taken.unlike():
            logger.warning("WARNING: begins with random weights in parts of which --init fits less than half: %s", taken.unlike())
    for part in frozen:
        if taken is None or not taken.has_all_of(part):
            logger.warning("WARNING: the frozen %s keeps the weights that it was built with: they are not all in --init", part)
    if taken is None or not taken.has_all_of("frontend"):
        frames = fit_frontend(system, source, seed)
        if frames:
            logger.info("feature statistics measured over %d frames", frames)


def _tell_held(system: Any, settings: TrainingSettings, taken: Sequence[str]) -> None:
    for part in settings.frozen if settings.frozen_updates else ():
        held = len(held_at_first(system, [part], taken).parameters)
        whole = len(list(getattr(system, part).parameters()))
        logger.info("%s: %d of %d weights are frozen for the first %d updates", part, held, whole, settings.frozen_updates)


class _Messages(logging.FileHandler):
    """A log file that cannot be written is an error like any other; logging's own way is to print tracebacks and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


@contextmanager
def _folder(exp: Path) -> Iterator[None]:
    """The experiment folder, locked against a second training, with messages going to train.log."""
    exp.mkdir(parents=True, exist_ok=True)
    # A record lock: it goes away with this very process, and is not inherited by loaders' workers.
    with (exp / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is training in {exp}: wait for it, or name another --exp") from None
        handler = _Messages(exp / "train.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        loggers: list[Any] = [logging.getLogger("reallm"), logging.getLogger("speechbrain")]
        for each in loggers:
            each.addHandler(handler)
            each.setLevel(logging.INFO)
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = disk_full(error)
            if reason is None:
                raise
            raise InputError(f"the disk of {exp} is full ({reason}): free some space and start the same command again") from error
        finally:
            for each in loggers:
                each.removeHandler(handler)
            with suppress(OSError):  # the disk is full: that was said
                handler.close()
