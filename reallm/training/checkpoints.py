"""Checkpoints that are whole or absent.

    checkpoints/
      CKPT+00000200/          after update 200, inside an epoch
      CKPT+00000260+end/      after update 260, at the end of an epoch
        CKPT.yaml  brain.ckpt  epochs.ckpt  system.ckpt  optimizer.ckpt  schedule.ckpt  checksums.json
      .writing-00000400/      half-written: not a checkpoint

SpeechBrain's own writes in place, CKPT.yaml first, and raises when the newest one is damaged. Here a checkpoint is
written beside, fsynced and renamed; one whose checksums do not hold is passed over for the one before.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, PARAMFILE_EXT, Checkpoint, Checkpointer
from speechbrain.utils.distributed import if_main_process, main_process_only, run_on_main
from torch import Tensor

from reallm import fingerprints
from reallm.config import Config
from reallm.errors import InputError
from reallm.training.settings import TrainingSettings

CHECKSUMS = "checksums.json"
WRITING = ".writing-"
DELETING = ".deleting-"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger(__name__)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _newest_first(folder: Path) -> list[Path]:
    """The checkpoint folders, damaged ones too; the one at the end of an epoch after one inside it."""
    return sorted((path for path in folder.glob(f"{CKPT_PREFIX}+*") if path.is_dir()), reverse=True)


def _save_state(obj: Any, path: Path) -> None:
    # Through a file object: given a path, torch hides what the operating system said about a write that failed.
    with path.open("wb") as file:
        torch.save(obj.state_dict(), file)


def disk_full(error: BaseException | None) -> str | None:
    """What the operating system said, when ``error`` came from a full disk (or quota, or limit on file sizes), else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return error.strerror
        error = error.__cause__ or error.__context__
    return None


def _update(path: Path) -> int:
    return int(path.name.split("+")[1])


def is_whole(path: Path) -> bool:
    """Whether every file of the checkpoint folder has its checksum."""
    try:
        checksums = json.loads((path / CHECKSUMS).read_text())
        return METAFNAME in checksums and all(fingerprints.of_file(path / name) == checksum for name, checksum in checksums.items())
    except (OSError, ValueError, AttributeError):
        return False


def whole_checkpoints(folder: Path) -> Iterator[Path]:
    """The whole checkpoints of ``folder``, newest first, one an update; a damaged one is passed over with a warning."""
    seen: set[int] = set()
    for path in _newest_first(folder):
        if _update(path) in seen:
            continue
        if is_whole(path):
            seen.add(_update(path))
            yield path
        else:
            logger.warning("checkpoint %s is damaged: passed over", path)


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from; None where there are none. Raises InputError when there are some and all are damaged."""
    newest = next(whole_checkpoints(folder), None)
    if newest is None and _newest_first(folder):
        raise InputError(f"all checkpoints in {folder} are damaged: remove the folder to train from the start")
    return newest


class WholeCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, with checkpoints that are whole or absent (see the top of this file).

    Of several processes that train together the first one writes, and decides which checkpoint all of them go on from.

    Args:
        folder: where checkpoints lie; what a killed run left half-written or half-deleted there is removed.
        keep: how many to keep, the newest ones.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder)
        self.keep = keep
        if not if_main_process():
            return
        for leftover in [*self.checkpoints_dir.glob(f"{WRITING}*"), *self.checkpoints_dir.glob(f"{DELETING}*")]:
            shutil.rmtree(leftover)

    def add_recoverable(self, name: str, obj: Any, **hooks: Any) -> None:
        """As the parent's; what has a ``state_dict`` is saved so that a full disk can be told from a bug."""
        if hasattr(obj, "state_dict"):
            hooks = {"custom_save_hook": _save_state, **hooks}
        super().add_recoverable(name, obj, **hooks)

    def save_checkpoint(
        self, meta: dict[str, Any] | None = None, end_of_epoch: bool = True, name: str | None = None, verbosity: int = logging.INFO
    ) -> Checkpoint:
        """Write a checkpoint whole, or leave no trace of it.

        Raises InputError when the disk is full; the checkpoints before stay as they are.
        """
        update = self.recoverables["brain"].optimizer_step
        name = name or f"{update:08d}" + ("+end" if end_of_epoch else "")
        self._staging = self.checkpoints_dir / f"{WRITING}{name}"
        final = self.checkpoints_dir / f"{CKPT_PREFIX}+{name}"
        try:
            self._write({**(meta or {}), "update": update}, end_of_epoch, verbosity)
            if final.exists():  # damaged, or it would have been resumed from
                shutil.rmtree(final)
            os.rename(self._staging, final)
            _fsync(self.checkpoints_dir)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(self._staging, ignore_errors=True)
            reason = disk_full(error)
            if reason is None:
                raise
            before = self.newest_update()
            kept = f"the one of update {before} is whole" if before else "there is none before it"
            raise InputError(
                f"the disk is full: checkpoint {final} was not written ({reason}); {kept}: free some space and start the same command again"
            ) from error
        return self._construct_checkpoint_objects([final])[0]

    def _write(self, meta: dict[str, Any], end_of_epoch: bool, verbosity: int) -> None:
        super().save_checkpoint(meta=meta, end_of_epoch=end_of_epoch, verbosity=verbosity)
        files = sorted(self._staging.iterdir())
        (self._staging / CHECKSUMS).write_text(json.dumps({path.name: fingerprints.of_file(path) for path in files}, indent=1))
        for path in self._staging.iterdir():
            _fsync(path)
        _fsync(self._staging)

    def _new_checkpoint_dirpath(self) -> Path:
        return self._staging

    def save_and_keep_only(
        self, meta: dict[str, Any] | None = None, end_of_epoch: bool = True, verbosity: int = logging.INFO, **selection: Any
    ) -> None:
        """Write a checkpoint and keep the newest ``keep``: ``selection``, which ``Brain`` would keep by, does not matter here."""
        run_on_main(self._save_and_keep, (meta, end_of_epoch, verbosity))

    def _save_and_keep(self, meta: dict[str, Any] | None, end_of_epoch: bool, verbosity: int) -> None:
        self.save_checkpoint(meta, end_of_epoch, verbosity=verbosity)
        kept: set[int] = set()
        for path in _newest_first(self.checkpoints_dir):
            if _update(path) in kept or len(kept) == self.keep:
                # Renamed first: a kill in the middle must not leave what looks like a damaged checkpoint.
                doomed = path.with_name(f"{DELETING}{path.name}")
                os.rename(path, doomed)
                shutil.rmtree(doomed)
            else:
                kept.add(_update(path))

    def newest_update(self) -> int:
        """The update that training would go on from; 0 = from the start."""
        update: int = main_process_only(lambda: next((_update(path) for path in whole_checkpoints(self.checkpoints_dir)), 0))()
        return update

    def recover_if_possible(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Go on from the newest whole checkpoint, if there is one.

        Raises InputError when there are checkpoints and all of them are damaged.
        """
        newest = main_process_only(newest_whole)(self.checkpoints_dir)
        if newest is None:
            return None
        checkpoint = self._construct_checkpoint_objects([newest])[0]
        self.load_checkpoint(checkpoint)
        return checkpoint


def load_weights(exp: Path, average: int | None = None) -> dict[str, Tensor]:
    """The system's weights, averaged over the last ``average`` checkpoints of an experiment (fewer, if there are fewer).

    None = as many as the experiment's configuration says. Averaged in float64; what is not floating point is the newest one's.

    Raises InputError when there is no whole checkpoint.
    """
    folder = Path(exp) / "checkpoints"
    if average is None:
        average = int(Config.read(Path(exp) / "config.yaml").value("training", "average", default=TrainingSettings.average))
    paths = [path for path, _ in zip(whole_checkpoints(folder), range(average), strict=False)]
    if not paths:
        raise InputError(f"no checkpoint in {folder}: train first (reallm train CONF --exp {exp})")
    logger.info("weights averaged over updates %s", ", ".join(str(_update(path)) for path in reversed(paths)))
    newest: dict[str, Tensor] = torch.load(paths[0] / f"system{PARAMFILE_EXT}", map_location="cpu", weights_only=True)
    sums = {name: weight.double() for name, weight in newest.items() if weight.is_floating_point()}
    for path in paths[1:]:
        other = torch.load(path / f"system{PARAMFILE_EXT}", map_location="cpu", weights_only=True)
        for name in sums:
            sums[name] += other[name]
    return {name: (sums[name] / len(paths)).to(weight.dtype) if name in sums else weight for name, weight in newest.items()}
