"""Times that can be compared on a machine whose speed changes: taken in turn, and judged by ratios within a round."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lightning.pytorch import Callback

from mnist_lab.config.compose import compose
from mnist_lab.runs.record import RunRecord
from mnist_lab.sweeps.process import keep_freed_memory
from mnist_lab.training.train import train

CHECKOUT = Path(__file__).parent.parent
T = TypeVar("T")


class Clock(Callback):
    """Notes when each epoch starts and when the last one ends, in seconds."""

    times: ClassVar[list[float]] = []

    def on_fit_start(self, *args: Any) -> None:
        self.times.clear()

    def on_train_epoch_start(self, *args: Any) -> None:
        self.times.append(time.perf_counter())

    def on_train_end(self, *args: Any) -> None:
        self.times.append(time.perf_counter())


def train_timed(*overrides: str) -> RunRecord:
    """Train in this process as the command line does, in a folder that is removed; the times are in Clock.times."""
    keep_freed_memory()
    given = ["+callbacks.clock._target_=benchmarks.timing.Clock", "callbacks.checkpoint.keep_small=false"]
    with tempfile.TemporaryDirectory() as folder:
        return train(compose(*overrides, *given, f"hydra.run.dir={folder}/run")).info


def peak_gigabytes() -> float:
    """Return the most memory that this process has had, on Linux and macOS."""
    import resource  # Windows does not have it.

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes on macOS, kilobytes elsewhere


def seconds_of_command(*arguments: str, may_fail: bool = False) -> float:
    """Run `python ARGUMENTS` in the checkout and return its seconds."""
    errors = subprocess.DEVNULL if may_fail else None
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, check=not may_fail, cwd=CHECKOUT)
    return time.perf_counter() - started


def output_of(module: str, *arguments: str, python: str | Path = sys.executable) -> str:
    """Run a module of this package in a process of its own, as in a terminal, and return its last line of output."""
    done = subprocess.run(
        [python, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=os.environ | {"TTY_COMPATIBLE": "1"},  # It shows the progress bar.
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def in_turn(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call functions round after round (A B C A B C ...) and return what each has measured."""
    values: dict[str, list[T]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return values


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median and the range."""
    median, least, greatest = (format(value, form) for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {greatest})"


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Return the median of the ratios within a round, and their range."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def print_head(*heads: str) -> None:
    """Print the head of a table in Markdown."""
    print_row(*heads)
    print("|---" * len(heads), end="|\n", flush=True)


def print_row(*cells: object) -> None:
    """Print a row of a table in Markdown as soon as it is measured."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)
