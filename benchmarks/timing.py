"""Times that can be compared on a machine whose speed changes: taken in turn, and judged by ratios within a round."""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lightning.pytorch import Callback
from matplotlib.figure import Figure

from mnist_lab.config.compose import compose
from mnist_lab.runs.record import RunRecord
from mnist_lab.sweeps.process import keep_freed_memory
from mnist_lab.training.train import train
from mnist_lab.viz.style import COLOURS, styled

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


@styled
def draw_times(
    measured: Mapping[str, Mapping[str, Sequence[float]]], names: Mapping[str, str], ours: Container[str], path: Path
) -> None:
    """Draw a panel for each network: a bar for each loop's median, the fastest on top, and a dot for each round."""
    columns = min(2, len(measured))
    lines = math.ceil(len(measured) / columns)
    figure = Figure(figsize=(4.8 * columns, 0.4 + 2.6 * lines))
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(measured) :]:
        axes.axis("off")
    for axes, (network, seconds) in zip(panels, measured.items(), strict=False):
        medians = {loop: statistics.median(values) for loop, values in seconds.items()}
        order = sorted(medians, key=medians.__getitem__)
        colours = [COLOURS["soft" if loop in ours else "line"] for loop in order]
        axes.barh(range(len(order)), [medians[loop] for loop in order], 0.7, color=colours)
        for place, loop in enumerate(order):
            rounds = seconds[loop]
            axes.plot(rounds, [place] * len(rounds), "o", color=COLOURS["ink"], mec=COLOURS["paper"], ms=4, mew=0.6)
            after = (max(rounds), place)
            axes.annotate(f"{medians[loop]:.2f}", after, (6, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.set_yticks(range(len(order)), [names[loop] for loop in order])
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlim(left=0)
        axes.set_title(network, loc="left", fontweight="bold")
    figure.supxlabel("seconds of an epoch of 60,000 images: median, and each round", fontsize=9.5)
    figure.savefig(path, dpi=120)
