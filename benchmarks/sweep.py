"""Seconds of twelve one-epoch jobs, six of lenet and six of mlp, run in four ways.

    python -m benchmarks.sweep [--rounds 2] [--jobs 2]

- parallel: `-m model=lenet,mlp seed=0,...,5 hydra/launcher=processes`, with --jobs N of them at once, which share the
  processor's threads.
- sequential: the same sweep in one process, one job after the other, each with all threads.
- one thread: the same with threads=1, which gives the results of the parallel sweep to the last bit.
- scripts: twelve scripts like the tutorials', each in a process of its own: the tutorial loop of benchmarks.epoch.

The four run in turn, round after round, each as a command from its start to its end. For the sequential sweep it also
prints how long a job after the first takes without its training, from the end of the job before.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.timing import in_turn, ratio, seconds_of_command, spread
from mnist_lab.runs.sweep import Sweep

MODELS, SEEDS = ("lenet", "mlp"), 6
SWEPT = (f"model={','.join(MODELS)}", f"seed={','.join(map(str, range(SEEDS)))}")


def run_sweep(runs_dir: str, *settings: str) -> float:
    """Run the sweep and return its seconds."""
    fixed = (*SWEPT, "trainer.max_epochs=1", "sweep=s", f"runs_dir={runs_dir}")
    return seconds_of_command("-m", "mnist_lab", "-m", *fixed, *settings)


def run_sweep_in_new_folder(*settings: str) -> float:
    """Run the sweep in a folder that is removed, and return its seconds."""
    with tempfile.TemporaryDirectory() as runs_dir:
        return run_sweep(runs_dir, *settings)


def run_scripts() -> float:
    """Run the twelve scripts and return their seconds."""
    scripts = [("-m", "benchmarks.epoch", model, "--only", "tutorial") for model in MODELS for _ in range(SEEDS)]
    return sum(seconds_of_command(*script) for script in scripts)


def seconds_beyond_training(runs_dir: str) -> list[float]:
    """Return for each job after the first its seconds from the end of the job before, without its training."""
    jobs = Sweep(Path(runs_dir) / "sweeps" / "s").jobs()
    ends = [(job.folder / "job.json").stat().st_mtime for job in jobs]
    pairs = zip(ends, ends[1:], jobs[1:], strict=False)
    return [end - before - job.info["seconds"]["fit"] for before, end, job in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="jobs at once (default: %(default)s)")
    options = parser.parse_args()
    beyond: list[float] = []

    def sequential() -> float:
        with tempfile.TemporaryDirectory() as runs_dir:
            seconds = run_sweep(runs_dir)
            beyond.extend(seconds_beyond_training(runs_dir))
        return seconds

    launcher = ("hydra/launcher=processes", f"hydra.launcher.n_jobs={options.jobs}")
    measures = {
        "parallel": lambda: run_sweep_in_new_folder(*launcher),
        "sequential": sequential,
        "one thread": lambda: run_sweep_in_new_folder("threads=1"),
        "scripts": run_scripts,
    }
    seconds = in_turn(measures, options.rounds)
    for name, values in seconds.items():
        print(f"{name}, s: {spread(values, '.0f')}")
    for name in ("sequential", "one thread", "scripts"):
        print(f"parallel / {name}: {ratio(seconds['parallel'], seconds[name])}")
    print(f"a job beyond its training, s: {spread(beyond)}")


if __name__ == "__main__":
    main()
