"""What the benchmarks share: sides that alternate, medians and spreads, operators by time, one table, one JSON file with machine, date
and commit."""

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
from reallm.streaming.compiled.system import with_compiled_layers

T = TypeVar("T")


def parser(
    description: str | None, repeats: int, configs: Sequence[str] = ("80m", "tiny"), profiles: bool = False
) -> argparse.ArgumentParser:
    """The options that all benchmarks have; ``--config`` too where there are several, ``--profile`` where one ``profiles``."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if configs:
        made.add_argument("--config", default=configs[0], choices=configs, help="the size of the models; tiny: to try the script")
    made.add_argument("--device", default="cpu", help="where all sides compute")
    made.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights of all sides")
    made.add_argument("--threads", type=int, default=1, help="of torch")
    made.add_argument("--repeats", type=int, default=repeats, help="turns that each side has")
    made.add_argument("--clock", default="wall", choices=list(CLOCKS), help="cpu: this process's own seconds, for ratios on a busy machine")
    made.add_argument("--json", type=Path, help="results are written to this file too")
    if profiles:
        made.add_argument(
            "--profile", type=Path, metavar="FILE", help="one more turn of each side, not timed: its operators by their own time"
        )
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


@torch.inference_mode()
def bandwidth(device: str, repeats: int = 5) -> float:
    """Bytes a second that a product of a float32 matrix and a vector reads: what weights are read with. Far more than any cache holds.

    On a processor that of reallm's own kernel, in large pages, which reads faster than torch. Of float32 whatever the weights are, since
    bytes are bytes: torch's product of one in bfloat16 takes longer than reading it does, and so does a sum. Raises InputError without a
    compiler.
    """
    on_cuda = torch.device(device).type == "cuda"
    megabytes, columns, calls = (2048, 4096, 20) if on_cuda else (256, 1024, 1)  # as many calls as make their launch count for nothing
    rows = megabytes * 2**20 // torch.float32.itemsize // columns
    vector = torch.ones(1, columns, device=device)
    product: Any = torch.nn.Linear(columns, rows, bias=False, device=device).eval()
    product = product if on_cuda else with_compiled_layers(product)
    return megabytes * 2**20 / _seconds_a_call(device, lambda: product(vector), calls, repeats)


def arithmetic(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations a second (a multiplication and an addition are two) of a product of two matrices."""
    size, calls = (8192, 20) if torch.device(device).type == "cuda" else (1024, 1)
    # Not of ones: an accelerator computes these faster, since they take less power.
    matrix = torch.randn(size, size, device=device).to(dtype)
    return 2.0 * size**3 / _seconds_a_call(device, lambda: matrix @ matrix, calls, repeats)


def _seconds_a_call(device: str, function: Callable[[], object], calls: int, repeats: int) -> float:
    """The least of ``repeats``, after one that warms up; each is a loop of ``calls``."""
    timer = Timer(device)

    def loop() -> None:
        for _ in range(calls):
            function()

    timer(loop)
    return min(timer(loop) for _ in range(repeats)) / calls


def profile(arguments: argparse.Namespace, turns: Mapping[str, Callable[[], object]], operators: int = 30) -> None:
    """Where ``--profile`` names a file, write the operators of one turn of each side there, those that take most time themselves first."""
    if arguments.profile is None:
        return
    on_cuda = torch.device(arguments.device).type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_cuda else [])]
    tables = []
    for name, turn in turns.items():
        with torch.profiler.profile(activities=activities, acc_events=True) as found:
            turn()
        by = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
        tables.append(f"{name}\n{found.key_averages().table(sort_by=by, row_limit=operators, max_name_column_width=80)}\n")
    with atomic_write(arguments.profile) as file:
        file.write("\n".join(tables))
    print(f"operators by their own time: {arguments.profile}", flush=True)


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
    """Rows of one benchmark, which are printed as they come, and at the end as a table of RESULTS.md.

    Args:
        name: of the script.
        arguments: ``json`` (a file, or None) and ``device``, and what else was set.
    """

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
        self._table: list[dict[str, str]] = []
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
        self._table.append({key.replace("_", " "): _shown(value) for key, value in values.items()})
        print("  ".join(f"{key} {value}" for key, value in self._table[-1].items()), flush=True)

    def finish(self) -> None:
        """Print the table, and write the JSON file where one is asked for."""
        print(f"\n{self._origin()}\n\n{markdown(self._table)}")
        if self.content["notes"]:
            print("\n" + "; ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in self.content["notes"].items()))
        if self._json is not None:
            with atomic_write(self._json) as file:
                json.dump(self.content, file, indent=1, ensure_ascii=False)

    def _origin(self) -> str:
        """Command, machine, threads, date, commit."""
        facts, commit = self.content["machine"], self.content["commit"] or "no checkout"
        on = f"{facts['accelerator']}, " if "accelerator" in facts else ""
        on += f"{facts['processor']}, {facts['cores']} cores, load {facts['load']} at the start, threads of torch: {facts['threads']}"
        changed = ", with changes" if commit.endswith("+") else ""
        return f"`{self.content['command']}`; {on}; {self.content['date'][:10]}; {commit.rstrip('+')[:12]}{changed}"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table with a column for every key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([row.get(column, "").replace("|", "\\|") for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
