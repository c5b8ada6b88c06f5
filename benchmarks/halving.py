"""Successive halving beside the full grid: 27 settings of learning rate and momentum, up to 9 epochs.

    python -m benchmarks.halving [NETWORK ...]

Runs both sweeps one after the other, with a job on each processor. Prints for each network the best validation accuracy
that each finds, the epochs that they train, and their seconds.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.timing import print_head, print_row, seconds_of_command
from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Sweep

RATES = "0.0003,0.001,0.003,0.01,0.02,0.05,0.1,0.2,0.5"
SETTINGS = (f"optimizer.lr={RATES}", "optimizer.momentum=0,0.5,0.9", "trainer.max_epochs=9", "hydra/launcher=processes")
HEADS = ("network", "sweep", "best validation accuracy, %", "settings")
HEADS += ("epochs", "of the grid's", "seconds", "of the grid's")


class Cost(NamedTuple):
    """The best result of a sweep, and its cost."""

    accuracy: float
    settings: str
    epochs: int
    seconds: float


def run(network: str, sweeper: str, folder: Path) -> Cost:
    """Run a sweep in a folder. Jobs that diverge may fail."""
    place = (f"runs_dir={folder}", f"sweep={sweeper}")
    command = ("-m", "mnist_lab", "-m", f"hydra/sweeper={sweeper}", f"model={network}", *SETTINGS, *place)
    seconds = seconds_of_command(*command, may_fail=True)
    results = Results.of(Sweep(folder / "sweeps" / sweeper))
    best = results.best_job
    assert best is not None
    settings = " ".join(f"{results.heads[key]}={value}" for key, value in results.settings(best).items())
    return Cost(100 * best.info["metrics"][VAL_ACC], settings, sum(len(job.epochs) for job in results.jobs), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", metavar="NETWORK", nargs="*", default=["mlp", "lenet"])
    print_head(*HEADS)
    for network in parser.parse_args().networks:
        with tempfile.TemporaryDirectory() as folder:
            costs = {sweeper: run(network, sweeper, Path(folder)) for sweeper in ("halving", "grid")}
        grid = costs["grid"]
        for sweeper, cost in costs.items():
            epochs = cost.epochs, f"{cost.epochs / grid.epochs:.0%}"
            seconds = f"{cost.seconds:.0f}", f"{cost.seconds / grid.seconds:.0%}"
            print_row(network, sweeper, f"{cost.accuracy:.2f}", cost.settings, *epochs, *seconds)


if __name__ == "__main__":
    main()
