"""The display of a sweep: its jobs while they run, and its results at the end."""

from __future__ import annotations

import contextlib
import math
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.live import Live

from mnist_lab.config.metric_names import TEST_ACC
from mnist_lab.console import PlainConsole
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_accuracy, format_count, format_duration, print_lines
from mnist_lab.runs.ranking import Results, describe_job
from mnist_lab.runs.record import DONE, NOT_FINITE_REMEDY, STOPPED, WELL_ENDED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Launcher, Stage
from mnist_lab.tables import table_lines

STYLES = {
    RunState.FINISHED: "green",
    RunState.PAUSED: "dim green",
    RunState.PRUNED: "dim green",
    RunState.FAILED: "red",
    RunState.RUNNING: "bold",
    RunState.INTERRUPTED: "yellow",
    RunState.KILLED: "yellow",
    RunState.WAITING: "dim",
}


class SweepDisplay:
    """Shows the jobs of a sweep from a thread while they run, and updates results.csv and results.json."""

    def __init__(
        self, sweep: Sweep, launcher: Launcher, expected_jobs: int = 0, console: PlainConsole | None = None
    ) -> None:
        self.sweep, self.launcher, self.expected_jobs = sweep, launcher, expected_jobs
        self.console = console or PlainConsole()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.printed = {(job.id, len(job.epochs)) for job in sweep.jobs() if job.state in WELL_ENDED}
        self.written_jobs: list[Job] | None = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._update_repeatedly, daemon=True)

    def __enter__(self) -> SweepDisplay:
        if self.console.is_terminal:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        self.thread.join()
        self.live.stop()
        self.update()

    def _update_repeatedly(self) -> None:
        pause = 1.0
        while not self.ending.wait(pause):
            begun = time.monotonic()
            with contextlib.suppress(UsageError):  # A record is just being written; the next update reads it.
                self.update()
            pause = max(1, 10 * (time.monotonic() - begun))  # Updates take a tenth of the time, even for many jobs.

    def update(self) -> None:
        """Read the jobs, write the results if they changed, and show them."""
        results = Results.of(self.sweep)
        if results.jobs != self.written_jobs:
            results.write()
            self.written_jobs = results.jobs
        if self.live.is_started:
            self.live.update(self.render(results), refresh=True)
        elif not self.console.is_terminal:
            for job in results.jobs:
                if job.state in DONE and (job.id, len(job.epochs)) not in self.printed:
                    self.printed.add((job.id, len(job.epochs)))
                    self.console.print(self.describe_result(results, job), soft_wrap=True)

    def describe_result(self, results: Results, job: Job) -> str:
        """Describe a job that is done, in one line, which begins with the number of jobs that are shown so far."""
        done, jobs = len({id for id, _ in self.printed}), max(len(results.jobs), self.expected_jobs)
        _, accuracy, time, _ = format_progress(job, results.metric)
        result = f"failed: {job.error}" if job.state == RunState.FAILED else f"{accuracy}, {time}"
        return f"{done}/{jobs} {describe_job(results, job)}: {result}"

    def render(self, results: Results) -> Group:
        """Return a table of the jobs, around the running ones as far as the terminal has room, and a line below it."""
        jobs, launched = results.jobs, self.launcher.jobs
        room = max(3, self.console.height - 8)
        first_running = next((number for number, job in enumerate(jobs) if job.state == RunState.RUNNING), 0)
        first = max(0, min(first_running - room // 2, len(jobs) - room))
        shown = jobs[first : first + room]
        lines = job_table(results, shown, launched)
        styles = ["", *(STYLES[job.state] for job in shown), ""]
        lines.append(describe_states(jobs, launched))
        seconds = [job.info["seconds"].get("total", 0.0) for job in jobs if job.state == RunState.FINISHED]
        if seconds:
            remaining = sum(job.state not in DONE for job in jobs)
            time_left = statistics.fmean(seconds) * remaining / self.launcher.parallel_jobs
            lines[-1] += f"; {format_duration(time_left)} left"
        return Group(*(self.console.render_str(line, style=style) for line, style in zip(lines, styles, strict=True)))


def job_table(results: Results, jobs: Sequence[Job], launched: Mapping[str, LaunchedJob]) -> list[str]:
    """Return the lines of a table of jobs, without their places if all are on this machine."""
    rows = []
    for job in jobs:
        state, place = describe_state(job, launched.get(job.id)), describe_place(job, launched.get(job.id))
        rows.append([*results.settings(job).values(), state, *format_progress(job, results.metric), place])
    words = [*results.heads.values(), "state"]
    heads = [*words, "epoch", "validation", "time", "left", *["where"] * any(row[-1] for row in rows)]
    cells = [row[: len(heads)] for row in rows]
    return table_lines(heads, cells, [*words, "where"], cut="where", drop=("left", "time"))


def describe_state(job: Job, launched: LaunchedJob | None) -> str:
    """Describe the state of a job; one that was interrupted may be in the queue of a cluster again."""
    is_queued = launched is not None and launched.stage == Stage.PENDING
    return "queued again" if is_queued and job.state in STOPPED else str(job.state)


def describe_states(jobs: Sequence[Job], launched: Mapping[str, LaunchedJob]) -> str:
    """Describe how many jobs there are in each state."""
    counts = Counter(describe_state(job, launched.get(job.id)) for job in jobs)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{format_count(len(jobs), 'job')}: {states}"


def describe_place(job: Job, launched: LaunchedJob | None) -> str:
    """Describe where a job is, or why it waits; empty for a job on this machine."""
    if launched is None or not launched.place:
        host = job.process.get("host", "")
        return "" if host == socket.gethostname() else host
    if launched.stage == Stage.PENDING and job.state != RunState.RUNNING:
        return f"{launched.reason or 'pending'} ({launched.place})"
    return f"{launched.machine} ({launched.place})" if launched.machine else launched.place


def best_accuracy(job: Job, metric: str, epochs: float = math.inf) -> float | None:
    """Return a job's best value of an accuracy within its first epochs; None if it has none."""
    return max((row[metric] for row in job.epochs if metric in row and row["epoch"] < epochs), default=None)


def format_progress(job: Job, metric: str) -> tuple[str, str, str, str]:
    """Format a job's completed and planned epochs, best value of an accuracy, time so far and time left."""
    info = job.info
    if not info:
        return "", "", "", ""
    done, planned = len(job.epochs), info["max_epochs"] or 0
    accuracy, seconds, left = best_accuracy(job, metric), info["seconds"].get("total", 0.0), ""
    if job.state == RunState.RUNNING:
        seconds += time.time() - Run(job.folder).record_path.stat().st_mtime  # The record is written every epoch.
        left = format_duration(seconds / done * (planned - done)) if done else ""
    return f"{done}/{planned}", "" if accuracy is None else f"{accuracy:.2%}", format_duration(seconds), left


def show_results(results: Results, command: str) -> None:
    """Write and print the results so far."""
    results.write()
    figure = save_sweep_figure(results)
    if results.ranked:
        print_lines(*results.table(), *describe_best(results))
    for job in results.jobs:
        if job.state in STOPPED:
            print_lines(": ".join(filter(None, (job.state, describe_job(results, job), job.error))))
    jobs = format_count(len(results.jobs), "job")
    failed = [job for job in results.jobs if job.state == RunState.FAILED]
    if failed:
        heading = f"mnist_lab: {len(failed)} of {jobs} failed; each has a train.log in its folder:"
        print_lines(heading, *(f"  {describe_job(results, job)}: {job.error}" for job in failed), file=sys.stderr)
    not_finite = sum((job.error or "").endswith(NOT_FINITE_REMEDY) for job in failed)
    unfinished = sum(job.state not in WELL_ENDED for job in results.jobs) - not_finite
    if not_finite:
        remedy = "start a new sweep=NAME with smaller values of optimizer.lr"
        print_lines(f"{not_finite} of {jobs} met NaN or infinity and would again; {remedy}")
    if unfinished:
        print_lines(f"{unfinished} of {jobs} not finished; to continue: {command}")
    sweep = results.sweep
    files = ", ".join(filter(None, [sweep.results_csv.name, sweep.results_json.name, figure]))
    print_lines(f"sweep folder: {display_path(sweep.folder)} ({files})")


def save_sweep_figure(results: Results) -> str | None:
    """Save a figure of accuracy by the settings besides seed, and return its name; None if there is nothing to plot."""
    from mnist_lab.viz.save import write_figure  # These import matplotlib, which a table does not need.
    from mnist_lab.viz.sweep import plot_accuracy_map, plot_coordinates, plot_response

    keys = [key for key in results.varied if key != "seed"]
    if not results.ranked or not keys:
        return None
    if len(keys) == 1:
        name, figure = "response.png", plot_response(results, *keys)
    elif len(keys) == 2:
        name, figure = "heat_map.png", plot_accuracy_map(results, *keys)
    else:
        name, figure = "coordinates.png", plot_coordinates(results, keys)
    write_figure(figure, results.sweep.folder / name)
    return name


def describe_best(results: Results) -> tuple[str, str]:
    """Describe the best settings: test accuracy, the command that trains them again, and the best job's run folder."""
    job, seeds = results.best_job, len(results.winner)
    assert job is not None
    accuracy, folder = format_accuracy(**results.entry(results.winner)[TEST_ACC]), display_path(job.folder)
    if seeds == 1:
        return f"best, test accuracy {accuracy}: {results.command}", f"its run folder: {folder}"
    best_seed = f"seed={job.info['seed']}, test accuracy {job.info['metrics'][TEST_ACC]:.2%}"
    return (
        f"best, test accuracy {accuracy} over {seeds} seeds: {results.command}",
        f"the best of these seeds by validation: {best_seed}: {folder}",
    )
