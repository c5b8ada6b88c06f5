"""Seconds of the main job before its first step, beside the import of the libraries, and of its dashboard.

    python -m benchmarks.start [--rounds 5]

Measured in turn, each in a process of its own: the import of torch, torchvision and lightning; --help; ls of a thousand
runs; the main job until its first step is done; after all imports, from the files to the first batch; and the whole
main job, with its dashboard.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from benchmarks.timing import in_turn, output_of, ratio, seconds_of_command, spread
from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import METRIC_NAMES
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_data, make_model
from mnist_lab.training.multistep import StepCallback
from mnist_lab.viz.dashboard import Dashboard

IMPORTS = "importing torch, torchvision, lightning"


class Stop(StepCallback):
    """Ends the process after its first step."""

    def after_step(self, *args: Any) -> None:
        os._exit(0)


class TimedDashboard(Dashboard):
    """Writes its seconds into the folder of the runs."""

    def fill(self, run: Run, cfg: DictConfig, *args: Any) -> None:
        started = time.perf_counter()
        super().fill(run, cfg, *args)
        (Path(cfg.runs_dir) / "seconds").write_text(str(time.perf_counter() - started), encoding="utf-8")


def first_batch() -> float:
    """Return the seconds from the files to the main job's first batch."""
    cfg = compose()
    model = make_model(cfg)
    started = time.perf_counter()
    data = make_data(cfg, model)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    return time.perf_counter() - started


def make_runs(count: int, folder: Path) -> None:
    """Write the records of finished runs."""
    metrics = {name: 0.97 if name.endswith("acc") else 0.1 for name in METRIC_NAMES}
    record = {"status": "finished", "model": "mlp", "epochs": 5, "metrics": metrics, "seconds": {"total": 12.5}}
    for number in range(count):
        run = folder / f"{number:04}-mlp"
        run.mkdir(parents=True)
        started = f"2026-11-{1 + number % 28:02}T12:00:00+00:00"
        (run / "run.json").write_text(json.dumps(record | {"started": started}), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-batch", action="store_true", help="measure that alone, in this process")
    options = parser.parse_args()
    if options.first_batch:
        print(first_batch())
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, thousand = Path(folder) / "runs", Path(folder) / "thousand"
        make_runs(1000, thousand)
        lab = partial(seconds_of_command, "-m", "mnist_lab")
        stop = "+callbacks.stop._target_=benchmarks.start.Stop"
        timed = "dashboard._target_=benchmarks.start.TimedDashboard"
        measures: dict[str, Callable[[], float]] = {
            IMPORTS: partial(seconds_of_command, "-c", "import torch, torchvision, lightning.pytorch"),
            "--help": partial(lab, "--help"),
            "ls of 1,000 runs": partial(lab, "ls", "--runs-dir", str(thousand)),
            "to the first step": partial(lab, stop, f"runs_dir={runs}"),
            "files to first batch": lambda: float(output_of("benchmarks.start", "--first-batch")),
            "main job": partial(lab, timed, f"runs_dir={runs}"),
            "its dashboard": lambda: float((runs / "seconds").read_text(encoding="utf-8")),
        }
        seconds = in_turn(measures, options.rounds)
    for name, values in seconds.items():
        print(f"{name}, s: {spread(values)}")
    print(f"to the first step / importing: {ratio(seconds['to the first step'], seconds[IMPORTS])}")
    shares = [dashboard / job for dashboard, job in zip(seconds["its dashboard"], seconds["main job"], strict=True)]
    print(f"dashboard / main job: {spread(shares, '.1%')}")


if __name__ == "__main__":
    main()
