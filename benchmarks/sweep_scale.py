"""Milliseconds a job of each part of a sweep but training, for 125 to 1,000 jobs.

    python -m benchmarks.sweep_scale [--jobs 1000]

The jobs are empty: each locks its folder and writes job.json, run.json and metrics.csv like a finished one, without
torch.

- compose: compose each job's settings. plan: do so, and find the job's id.
- run: run the jobs in this process while the sweep is watched.
- look: read the sweep, write results.csv and results.json, and draw the table. The watch looks once a second at most.
- show: show the results at the end, with their figure.

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

from benchmarks.timing import print_head, print_row
from mnist_lab.config.compose import CommandLine, compose
from mnist_lab.console import PlainConsole
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunRecord, RunState, write_record
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, write_job
from mnist_lab.sweeps import jobs
from mnist_lab.sweeps.loop import open_sweep
from mnist_lab.sweeps.plan import Plan
from mnist_lab.sweeps.progress import SweepDisplay, show_results

SWEPT = ("optimizer.lr", "optimizer.momentum", "seed")


def finish(job: Job, cfg: DictConfig | None = None) -> Job:
    """Write the records of a job that has finished."""
    number = int(job.id, 16)
    write_job(job)
    run, accuracy = Run(job.folder), 0.9 + number % 97 / 1000
    info: RunRecord = {
        "status": RunState.FINISHED,
        "overrides": list(job.overrides),
        "seed": number % 5,
        "max_epochs": 1,
        "epochs": 1,
        "metrics": {"val/acc": accuracy, "val/loss": 1 - accuracy, "test/acc": accuracy},
        "seconds": {"fit": 1.0, "total": 1.5},
    }
    run.metrics_path.write_text(f"step,epoch,train/loss,val/acc\n937,0,0.1,{accuracy}\n")
    write_record(run.record_path, info)
    finished = replace(job, state=RunState.FINISHED)
    write_job(finished)
    return finished


def jobs_of(count: int) -> dict[str, list[str]]:
    """Return the overrides of jobs by their ids: five seeds of each setting."""
    jobs = {}
    for n in range(count):
        values = (0.001 * (1 + n // 50), 0.05 * (n // 5 % 10), n % 5)
        jobs[f"{n:012x}"] = [f"{key}={value:g}" for key, value in zip(SWEPT, values, strict=True)]
    return jobs


def seconds_of(function: Callable[[], object], times: int = 1) -> float:
    """Return the median of the seconds of a call."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(count: int) -> dict[str, float]:
    """Run an empty sweep and return the seconds of its parts."""
    seconds: dict[str, float] = {}
    planned = [tuple(overrides) for overrides in jobs_of(count).values()]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(jobs, "_attempt", finish):
        plan = Plan.of(CommandLine((f"runs_dir={folder}", "sweep=s", *(f"{key}=0.1,0.2" for key in SWEPT))))
        seconds["compose"] = seconds["plan"] = 0.0
        ids = {}
        for number, overrides in enumerate(planned):  # The speed of the machine changes, so both take turns.
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
    """Return the seconds of an update of the display, and of the results."""
    seconds: dict[str, float] = {}
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=120, height=50)
    with SweepDisplay(plan.sweep, plan.launcher, console=console) as display:
        display.update()
        seconds["look: nothing changed"] = seconds_of(display.update, 5)
        job = plan.sweep.jobs()[0]
        write_job(replace(job, attempts=job.attempts + 1))
        seconds["look: one job changed"] = seconds_of(display.update)
    with contextlib.redirect_stdout(io.StringIO()):
        show_results(Results.of(plan.sweep), "command")  # The first call imports matplotlib.
        seconds["show the results"] = seconds_of(lambda: show_results(Results.of(plan.sweep), "command"))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs in the last column (default: %(default)s)")
    options = parser.parse_args()
    counts = [options.jobs // 8, options.jobs // 4, options.jobs // 2, options.jobs]
    print_head("ms a job", *(f"{count:,} jobs" for count in counts))
    columns = [{part: 1000 * seconds / count for part, seconds in measure(count).items()} for count in counts]
    for part in columns[0]:
        print_row(part, *(f"{column[part]:.2f}" for column in columns))


if __name__ == "__main__":
    main()
