"""A sweep of a small network in three ways: job after job, side by side in processes, and trained together.

    python -m benchmarks.stacked [--rounds 3] [KEY=VALUE ...]

The jobs are of mlp at the tutorial's settings, five epochs each: they differ in learning rate and momentum. Each way is
timed as a command, from its start to its end, in turn, round after round.

- local: one job after the other, each with all threads.
- processes: as many at once as there are processors.
- stacked: all of them together.

The last line has by how many points the test accuracy of a job differs between local and stacked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.sweep import seconds_of
from benchmarks.timing import ratio, spread
from mnist_lab.runs.sweep import Sweep

LAUNCHERS = ("local", "processes", "stacked")
LEARNING_RATES, MOMENTA = (0.002, 0.003, 0.005, 0.007), (0.8, 0.85, 0.9)


def accuracies(runs_dir: str) -> dict[str, float]:
    """Test accuracy of each job by its id."""
    return {job.id: job.info["metrics"]["test/acc"] for job in Sweep(Path(runs_dir) / "sweeps" / "s").jobs()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    swept = (
        f"optimizer.lr={','.join(map(str, LEARNING_RATES))}",
        f"optimizer.momentum={','.join(map(str, MOMENTA))}",
    )
    settings = ("experiment=mlp", "callbacks.test_curve=null", *options.settings, *swept, "sweep=s")
    seconds: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
    found: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for launcher in LAUNCHERS:
            with tempfile.TemporaryDirectory() as runs_dir:
                command = ("mnist_lab", "-m", *settings, f"runs_dir={runs_dir}", f"hydra/launcher={launcher}")
                seconds[launcher].append(seconds_of(*command))
                found[launcher] = accuracies(runs_dir)
    for launcher, values in seconds.items():
        print(f"{launcher}, s: {spread(values)}")
    for other in ("local", "processes"):
        print(f"stacked / {other}: {ratio(seconds['stacked'], seconds[other])}")
    apart = [100 * abs(found["stacked"][id] - accuracy) for id, accuracy in found["local"].items()]
    print(f"difference in test accuracy, points: {statistics.median(apart):.2f}, at most {max(apart):.2f}")


if __name__ == "__main__":
    main()
