"""What the benchmarks share: sides that alternate, medians and spreads, one table, one JSON file with machine, date and commit."""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from reallm.data.files import atomic_write
from reallm.errors import InputError, at_least
from reallm.metrics.provenance import git_revision

T = TypeVar("T")


def parser(description: str | None, repeats: int, configs: Sequence[str] = ("80m", "tiny")) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", default=configs[0], choices=configs, help="the size of the models; tiny: to try the script")
    made.add_argument("--device", default="cpu", help="where all sides compute")
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights of all sides")
    made.add_argument("--threads", type=int, default=1, help="of torch")
    made.add_argument("--repeats", type=int, default=repeats, help="turns that each side has")
    made.add_argument("--clock", default="wall", choices=list(CLOCKS), help="cpu: this process's own seconds, for ratios on a busy machine")
    made.add_argument("--json", type=Path, help="results are written to this file too")
    return made


def run(made: argparse.ArgumentParser, bench: Callable[[argparse.Namespace, "Report"], None]) -> None:
    """Parse, measure, print and write. A user's mistake is one line and exit status 2."""
    arguments = made.parse_args()
    try:
        at_least(1, threads=arguments.threads, repeats=arguments.repeats)
        if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device '{arguments.device}': there is no such accelerator here, give --device cpu")
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        report = Report(Path(sys.argv[0]).stem, arguments)
        bench(arguments, report)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    report.finish()


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Timer:
    """Seconds that something takes on ``device``."""

    device: str
    clock: str = "wall"

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Timer":
        """As the options say."""
        return cls(arguments.device, arguments.clock)

    def now(self) -> float:
        """After all that was asked of the device is done."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize()
        return CLOCKS[self.clock]()

    def __call__(self, function: Callable[[], object]) -> float:
        """Seconds of one call."""
        begun = self.now()
        function()
        return self.now() - begun


def alternate(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each side gives at each of its ``repeats`` turns; what it gives at a first one, which warms it up, is dropped."""
    for side in sides.values():
        side()
    found: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in list(sides) if turn % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
    return found


@dataclass(frozen=True)
class Spread:
    """The median of several measurements, and what lies around it."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float], scale: float = 1.0) -> "Spread":
        """Of ``values``, each times ``scale``."""
        scaled = [scale * value for value in values]
        return cls(statistics.median(scaled), min(scaled), max(scaled))

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.least:.4g}–{self.most:.4g})"


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between ranks."""
    return float(np.percentile(np.asarray(values), percent))


def bandwidth(device: str, megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes a second that a product of a matrix and a vector reads: what weights are read with. Far more than any cache holds."""
    columns = 1024
    matrix = torch.ones(megabytes * 2**20 // 4 // columns, columns, device=device)
    vector, timer = torch.ones(columns, device=device), Timer(device)
    timer(lambda: matrix @ vector)
    return matrix.numel() * 4 / min(timer(lambda: matrix @ vector) for _ in range(repeats))


def arithmetic(device: str, dtype: torch.dtype, size: int = 1024, repeats: int = 5) -> float:
    """Operations a second (a multiplication and an addition are two) of a product of two matrices."""
    matrix, timer = torch.ones(size, size, device=device, dtype=dtype), Timer(device)
    timer(lambda: matrix @ matrix)
    return 2.0 * size**3 / min(timer(lambda: matrix @ matrix) for _ in range(repeats))


def kept_for_backward(model: torch.nn.Module, forward: Callable[[], object]) -> float:
    """Bytes that a forward pass keeps for the backward pass, the model's weights aside."""
    held: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
        del loss
    return float(sum(held.values()))


def machine(device: str) -> dict[str, Any]:
    """What was measured on, and what else it was doing."""
    load = os.getloadavg()[0]
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": round(load, 2)}
    found |= {"torch": torch.__version__, "python": platform.python_version()}
    if torch.device(device).type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


class Report:
    """Rows of one benchmark, which are printed as they come and written down at the end."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self._json: Path | None = arguments.json
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        self.content: dict[str, Any] = {
            "bench": name,
            "command": shlex.join([f"tools/bench/{name}.py", *sys.argv[1:]]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": git_revision(),
            "machine": machine(arguments.device),
            "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
            "notes": {},
            "rows": [],
        }
        facts = self.content["machine"]
        print(f"{name}: {facts.get('accelerator', facts['processor'])}, {facts['threads']} threads, load {facts['load']}", flush=True)

    def note(self, **values: Any) -> None:
        """What holds for all rows."""
        self.content["notes"] |= values
        for key, value in values.items():
            print(f"{key.replace('_', ' ')}: {_shown(value)}", flush=True)

    def row(self, **values: Any) -> None:
        """One row; a Spread is shown as its median, least and most."""
        row = {key: vars(value) if isinstance(value, Spread) else value for key, value in values.items()}
        self.content["rows"].append(row)
        print("  ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in values.items()), flush=True)

    def finish(self) -> None:
        """Write the JSON file, where one is asked for."""
        if self._json is not None:
            with atomic_write(self._json) as file:
                json.dump(self.content, file, indent=1, ensure_ascii=False)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
