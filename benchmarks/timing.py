"""Times that can be compared on a machine whose speed drifts: taken in turn, and judged by ratios within a round."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lightning.pytorch import Callback

T = TypeVar("T")


class Clock(Callback):
    """When each epoch starts, and when the last one ends, in seconds."""

    times: ClassVar[list[float]] = []

    def on_fit_start(self, *args: Any) -> None:
        self.times.clear()

    def on_train_epoch_start(self, *args: Any) -> None:
        self.times.append(time.perf_counter())

    def on_train_end(self, *args: Any) -> None:
        self.times.append(time.perf_counter())


def peak_gigabytes() -> float:
    """Return the most memory that this process has had. Linux and macOS."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kilobytes elsewhere


def output_of(module: str, *arguments: str, python: str | Path = sys.executable) -> str:
    """The last line that a module of this package prints, run in a process of its own as on a terminal."""
    done = subprocess.run(
        [python, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"TTY_COMPATIBLE": "1"},  # with the progress bar
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def in_turn(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """The values that functions return, each of which measures once, round after round: A B C A B C ..."""
    values: dict[str, list[T]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return values


def spread(values: Sequence[float]) -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median of the ratios within a round, and their range."""
    return spread([a / b for a, b in zip(over, under, strict=True)])
