"""Seconds of the main job before its first step, beside importing the libraries alone, and of its dashboard.

    python -m benchmarks.start [--rounds 5]

In turn, each in a process of its own, in seconds: importing torch, torchvision and lightning; --help; ls of a thousand
runs; the main job until its first step is done; within a process that has imported everything, from the files to the
first batch; and the whole main job, with its dashboard.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from benchmarks.timing import output_of, ratio, spread
from mnist_lab.runs.run import Run
from mnist_lab.training.multistep import StepCallback
from mnist_lab.viz.dashboard import Dashboard


class Stop(StepCallback):
    """Ends the process after its first step."""

    def after_step(self, *args: Any) -> None:
        os._exit(0)


class TimedDashboard(Dashboard):
    """Writes the seconds that it takes into the folder of the runs."""

    def fill(self, run: Run, cfg: DictConfig, *args: Any) -> None:
        started = time.perf_counter()
        super().fill(run, cfg, *args)
        (Path(cfg.runs_dir) / "seconds").write_text(str(time.perf_counter() - started), encoding="utf-8")


def seconds_of(*arguments: str) -> float:
    """Seconds of a Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def first_batch() -> float:
    """Seconds from the files to the main job's first batch."""
    from mnist_lab.config.compose import compose
    from mnist_lab.training.build import make_data, make_model

    cfg = compose()
    model = make_model(cfg)
    started = time.perf_counter()
    data = make_data(cfg, model)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    return time.perf_counter() - started


def make_runs(count: int, folder: Path) -> None:
    """Write the records of finished runs, as many as asked for."""
    metrics = {
        "train/loss": 0.1,
        "train/acc": 0.97,
        "val/loss": 0.1,
        "val/acc": 0.97,
        "test/loss": 0.1,
        "test/acc": 0.97,
    }
    record = {"status": "finished", "model": "mlp", "epochs": 5, "metrics": metrics, "seconds": {"total": 12.5}}
    for number in range(count):
        run = folder / f"{number:04}-mlp"
        run.mkdir()
        started = f"2026-11-{1 + number % 28:02}T12:00:00+00:00"
        (run / "run.json").write_text(json.dumps(record | {"started": started}), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-batch", action="store_true", help="that alone, in this process")
    options = parser.parse_args()
    if options.first_batch:
        print(first_batch())
        return
    names = (
        "importing torch, torchvision, lightning",
        "--help",
        "ls of 1,000 runs",
        "to the first step",
        "files to first batch",
        "main job",
        "its dashboard",
    )
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as runs_dir:
            stop = ("+callbacks.stop._target_=benchmarks.start.Stop", f"runs_dir={runs_dir}")
            imports, help_, listing, step, batch, job, dashboard = seconds.values()
            imports.append(seconds_of("-c", "import torch, torchvision, lightning.pytorch"))
            help_.append(seconds_of("-m", "mnist_lab", "--help"))
            with tempfile.TemporaryDirectory() as thousand:
                make_runs(1000, Path(thousand))
                listing.append(seconds_of("-m", "mnist_lab", "ls", "--runs-dir", thousand))
            step.append(seconds_of("-m", "mnist_lab", *stop))
            batch.append(float(output_of("benchmarks.start", "--first-batch")))
            timed = ("dashboard._target_=benchmarks.start.TimedDashboard", f"runs_dir={runs_dir}")
            job.append(seconds_of("-m", "mnist_lab", *timed))
            dashboard.append(float((Path(runs_dir) / "seconds").read_text(encoding="utf-8")))
    for name, values in seconds.items():
        print(f"{name}, s: {spread(values)}")
    imports, _, _, step, _, job, dashboard = seconds.values()
    print(f"to the first step / importing: {ratio(step, imports)}")
    shares = [a / b for a, b in zip(dashboard, job, strict=True)]
    print(f"dashboard / main job: {statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})")


if __name__ == "__main__":
    main()
