"""What a sweep costs: twelve one-epoch jobs, six of lenet and six of mlp, in four ways.

    python -m benchmarks.sweep [--rounds 2] [--jobs 2]

- parallel: `-m model=lenet,mlp seed=0,...,5 hydra/launcher=processes`, --jobs N of them at once, with equal shares
  of the processor's threads.
- sequential: the same sweep in one process, one job after the other, each with all threads.
- one thread: the same with threads=1, which gives the parallel one's results to the last bit.
- scripts: twelve scripts as the tutorials have them, each a process of its own: benchmarks.epoch's tutorial loop.

The four run in turn, round after round. Each is timed as a command, from its start to its end. Of the sequential one
it is told, too, how much of a job after the first, from the end of the one before to its own, is not its training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import ratio
from mnist_lab.runs.sweep import Sweep

MODELS, SEEDS = ("lenet", "mlp"), 6
SWEPT = (f"model={','.join(MODELS)}", f"seed={','.join(map(str, range(SEEDS)))}")


def seconds_of(*arguments: str) -> float:
    """Seconds that a command of this Python takes."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *arguments], check=True, capture_output=True, cwd=Path(__file__).parent.parent
    )
    return time.perf_counter() - started


def sweep(runs_dir: str, *settings: str) -> float:
    """Seconds of the sweep."""
    return seconds_of("mnist_lab", "-m", *SWEPT, "trainer.max_epochs=1", "sweep=s", f"runs_dir={runs_dir}", *settings)


def scripts() -> float:
    """Seconds of the twelve scripts."""
    return sum(seconds_of("benchmarks.epoch", model, "--only", "tutorial") for model in MODELS for _ in range(SEEDS))


def beyond_training(runs_dir: str) -> list[float]:
    """Of each job after the first in a process: seconds from the end of the one before to its own, without its fit."""
    jobs = Sweep(Path(runs_dir) / "sweeps" / "s").jobs()
    ends = [(job.folder / "job.json").stat().st_mtime for job in jobs]
    pairs = zip(ends, ends[1:], jobs[1:], strict=False)
    return [end - before - job.info["seconds"]["fit"] for before, end, job in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at once (default: %(default)s)")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"parallel": [], "sequential": [], "one thread": [], "scripts": []}
    beyond: list[float] = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as runs_dir:
            launcher = ("hydra/launcher=processes", f"hydra.launcher.n_jobs={options.jobs}")
            seconds["parallel"].append(sweep(runs_dir, *launcher))
        with tempfile.TemporaryDirectory() as runs_dir:
            seconds["sequential"].append(sweep(runs_dir))
            beyond += beyond_training(runs_dir)
        with tempfile.TemporaryDirectory() as runs_dir:
            seconds["one thread"].append(sweep(runs_dir, "threads=1"))
        seconds["scripts"].append(scripts())
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.0f} s ({min(values):.0f} to {max(values):.0f})")
    for name in ("sequential", "one thread", "scripts"):
        print(f"parallel / {name}: {ratio(seconds['parallel'], seconds[name])}")
    print(f"a job beyond its training: {statistics.median(beyond):.2f} s ({min(beyond):.2f} to {max(beyond):.2f})")


if __name__ == "__main__":
    main()
