"""What a sweep of many jobs costs beside its training: milliseconds a job of each part, for 125 to 1,000 jobs.

    python -m benchmarks.sweep_scale [--jobs 1000]

The jobs are empty: each locks its folder and writes job.json, run.json and metrics.csv as a finished one has them,
without torch.

- compose: a plain composition of each job's settings; plan: the same, with the job's id.
- run: the jobs are run to their ends in this process while the sweep is watched.
- look: the watch reads the sweep, writes results.csv and results.json, and draws the table; once a second at most.
- show: the results at the end, with their figure.

A part that grows linearly takes the same time a job in each column.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

from omegaconf import DictConfig
from rich.console import Console

from mnist_lab.config.compose import CommandLine, compose
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunRecord, RunState, write_record
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, write_job
from mnist_lab.sweeps import jobs
from mnist_lab.sweeps.loop import open_sweep
from mnist_lab.sweeps.plan import Plan
from mnist_lab.sweeps.progress import SweepDisplay, show_results

SWEPT = ("optimizer.lr", "optimizer.momentum", "seed")


def finish(started: Job, cfg: DictConfig | None = None) -> Job:
    """Write the records of a job as training leaves them."""
    number = int(started.id, 16)
    write_job(started)
    run, accuracy = Run(started.folder), 0.9 + number % 97 / 1000
    info: RunRecord = {
        "status": RunState.FINISHED,
        "overrides": list(started.overrides),
        "seed": number % 5,
        "max_epochs": 1,
        "epochs": 1,
        "metrics": {"val/acc": accuracy, "val/loss": 1 - accuracy, "test/acc": accuracy},
        "seconds": {"fit": 1.0, "total": 1.5},
    }
    run.metrics_path.write_text(f"step,epoch,train/loss,val/acc\n937,0,0.1,{accuracy}\n")
    write_record(run.record_path, info)
    done = replace(started, state=RunState.FINISHED)
    write_job(done)
    return done


def jobs_of(count: int) -> dict[str, list[str]]:
    """Return the overrides of the given number of jobs, by their ids: five seeds of each setting."""
    values = [(0.001 * (1 + n // 50), 0.05 * (n // 5 % 10), n % 5) for n in range(count)]
    return {
        f"{n:012x}": [f"{key}={value:g}" for key, value in zip(SWEPT, of_job, strict=True)]
        for n, of_job in enumerate(values)
    }


def seconds_of(function: Callable[[], object], times: int = 1) -> float:
    """Median of the seconds of a call."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def measure(count: int) -> dict[str, float]:
    """Seconds of the parts of an empty sweep."""
    seconds: dict[str, float] = {}
    planned = [tuple(overrides) for overrides in jobs_of(count).values()]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(jobs, "_attempt", finish):
        plan = Plan.of(CommandLine((f"runs_dir={folder}", "sweep=s", *(f"{key}=0.1,0.2" for key in SWEPT))))
        seconds["compose"] = seconds["plan"] = 0.0
        ids = {}
        for number, overrides in enumerate(planned):  # Both take turns, and so meet the same machine.
            seconds["compose"] += seconds_of(lambda given=overrides: compose(*given))  # type: ignore[misc]
            started = time.perf_counter()
            ids[plan.compose_job(overrides, number)[0]] = list(overrides)
            seconds["plan"] += time.perf_counter() - started
        with contextlib.redirect_stdout(io.StringIO()), open_sweep(plan, ids) as loop:
            seconds["run"] = seconds_of(lambda: loop.run(list(ids)))
        finished = sum(job.state == RunState.FINISHED for job in plan.sweep.jobs())
        assert finished == count, f"{finished} of {count} jobs are finished"
        return seconds | measure_looks(plan)


def measure_looks(plan: Plan) -> dict[str, float]:
    """Seconds of an update of the display, and of the results."""
    seconds: dict[str, float] = {}
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    with SweepDisplay(plan.sweep, plan.launcher, console) as display:
        display.update()
        seconds["look: nothing changed"] = seconds_of(display.update, 5)
        done = plan.sweep.jobs()[0]
        write_job(replace(done, attempts=done.attempts + 1))
        seconds["look: one job changed"] = seconds_of(display.update)
    with contextlib.redirect_stdout(io.StringIO()):
        show_results(Results.of(plan.sweep), "command")  # imports matplotlib
        seconds["show the results"] = seconds_of(lambda: show_results(Results.of(plan.sweep), "command"))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="at most (default: %(default)s)")
    options = parser.parse_args()
    counts = [options.jobs // 8, options.jobs // 4, options.jobs // 2, options.jobs]
    print(f"| ms a job | {' | '.join(f'{count:,} jobs' for count in counts)} |\n|---|{'---|' * len(counts)}")
    columns = [{part: 1000 * seconds / count for part, seconds in measure(count).items()} for count in counts]
    for part in columns[0]:
        print(f"| {part} | {' | '.join(f'{column[part]:.2f}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
