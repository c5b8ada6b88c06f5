"""Times that can be compared on a machine whose speed drifts: taken in turn, and judged by ratios within a round."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback


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


def output_of(module: str, *arguments: str) -> str:
    """The last line that a module of this package prints, run in a process of its own as on a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"TTY_COMPATIBLE": "1"},  # with the progress bar
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """The numbers that commands, each a module and its arguments, print last, round after round: A B C A B C ..."""
    numbers: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            numbers[name].append(float(output_of(*command)))
    return numbers


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median of the ratios within a round, and their range."""
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
