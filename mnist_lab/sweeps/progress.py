"""Show the states of a sweep's jobs while it runs, and its results at the end."""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.table import Table

from mnist_lab.config.metric_names import TEST_ACC, VAL_ACC
from mnist_lab.console import PlainConsole
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, format_accuracy, format_duration, print_lines
from mnist_lab.runs.ranking import Results, describe_job
from mnist_lab.runs.record import DONE, STOPPED, WELL_ENDED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage

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


class Watch:
    """Reads the sweep's folder in a thread, shows the jobs, and updates results.csv and results.json."""

    def __init__(self, sweep: Sweep, launcher: Launcher, console: PlainConsole | None = None) -> None:
        self.sweep, self.launcher = sweep, launcher
        self.console = console or PlainConsole()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.printed = {(job.id, len(job.epochs)) for job in sweep.jobs() if job.state in WELL_ENDED}
        self.written: list[Job] | None = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending.set()
        self.thread.join()
        self.live.stop()
        self.look()

    def _watch(self) -> None:
        pause = 1.0
        while not self.ending.wait(pause):
            begun = time.monotonic()
            with contextlib.suppress(UsageError):  # a record that is being written; the next look reads it
                self.look()
            pause = max(1, 10 * (time.monotonic() - begun))  # a tenth of the time, however many jobs there are

    def look(self) -> None:
        """Read the jobs, write the results if they changed, and show them."""
        results = Results.of(self.sweep)
        if results.jobs != self.written:
            results.write()
            self.written = results.jobs
        if self.live.is_started:
            self.live.update(self.render(results), refresh=True)
        elif not self.console.is_terminal:
            for job in results.jobs:
                if job.state in DONE and (job.id, len(job.epochs)) not in self.printed:
                    self.printed.add((job.id, len(job.epochs)))
                    self.console.print(line(results, job), soft_wrap=True)

    def render(self, results: Results) -> Group:
        """Return a table of jobs around the running ones, as high as the terminal, and the number of jobs by state."""
        jobs, placements = results.jobs, self.launcher.placements
        places = {job.id: describe_place(job, placements.get(job.id)) for job in jobs}
        table = Table(*results.heads.values(), "state")
        for head in ("epoch", "validation", "time", "left"):
            table.add_column(head, justify="right")
        if any(places.values()):
            table.add_column("where", no_wrap=True, max_width=max(12, self.console.width - 62))
        room = max(3, self.console.height - 8)
        running = [number for number, job in enumerate(jobs) if job.state == RunState.RUNNING]
        first = max(0, min((running or [0])[0] - room // 2, len(jobs) - room))
        for job in jobs[first : first + room]:
            cells = [*results.settings(job).values(), job.state, *progress(job), places[job.id]]
            table.add_row(*cells[: len(table.columns)], style=STYLES[job.state])
        left = self.seconds_left(jobs)
        return Group(table, count_states(jobs) + (f"; {format_duration(left)} left" if left is not None else ""))

    def seconds_left(self, jobs: list[Job]) -> float | None:
        """Estimate the seconds for the remaining jobs from the finished ones; None before one is finished."""
        took = [job.info["seconds"].get("total", 0.0) for job in jobs if job.state == RunState.FINISHED]
        left = sum(job.state not in DONE for job in jobs)
        return statistics.fmean(took) * left / self.launcher.at_once if took else None


def count_states(jobs: Sequence[Job]) -> str:
    """Describe how many jobs there are in each state."""
    numbers = Counter(job.state for job in jobs)
    return f"{len(jobs)} jobs: {', '.join(f'{numbers[state]} {state}' for state in STYLES if numbers[state])}"


def describe_place(job: Job, placement: Placement | None) -> str:
    """Describe where a job is, or why it waits; empty for one on this machine."""
    if placement is None or not placement.place:
        host = job.process.get("host", "")
        return "" if host == socket.gethostname() else host
    if placement.stage == Stage.PENDING and job.state != RunState.RUNNING:
        return f"{placement.reason or 'pending'} ({placement.place})"
    return f"{placement.machine} ({placement.place})" if placement.machine else placement.place


def line(results: Results, job: Job) -> str:
    """Describe a done job in one line."""
    over = sum(other.state in DONE for other in results.jobs)
    settings = " ".join(f"{results.heads[key]}={value}" for key, value in results.settings(job).items())
    _, best, took, _ = progress(job)
    end = f"failed: {job.error}" if job.state == RunState.FAILED else f"{best}, {took}"
    return f"{over}/{len(results.jobs)} {settings}: {end}"


def progress(job: Job) -> tuple[str, str, str, str]:
    """Format a job's completed and planned epochs, best validation accuracy, time so far and time left."""
    info = job.info
    if not info:
        return "", "", "", ""
    epochs = job.epochs
    best = max((row[VAL_ACC] for row in epochs if VAL_ACC in row), default=None)
    done, asked = len(epochs), info["max_epochs"] or 0
    seconds = info["seconds"].get("total", 0.0)
    left = ""
    if job.state == RunState.RUNNING:
        seconds += time.time() - Run(job.folder).record_path.stat().st_mtime  # The record is written every epoch.
        left = format_duration(seconds / done * (asked - done)) if done else ""
    return f"{done}/{asked}", "" if best is None else f"{best:.2%}", format_duration(seconds), left


def show_results(results: Results, command: str) -> None:
    """Write and print the results so far."""
    console = PlainConsole()
    results.write()
    figure = save_sweep_figure(results)
    if results.ranked:
        console.print(results.table())
        console.print(*describe_best(results), sep="\n", soft_wrap=True)
    for job in results.jobs:
        if job.state in STOPPED:
            reason = f": {job.error}" if job.error else ""
            console.print(f"{job.state}: {describe_job(results, job)}{reason}", soft_wrap=True)
    failed = [f"  {describe_job(results, job)}: {job.error}" for job in results.jobs if job.state == RunState.FAILED]
    if failed:
        told = f"mnist_lab: {len(failed)} of {len(results.jobs)} jobs failed; each has a train.log in its folder:"
        print_lines(told, *failed, file=sys.stderr)
    left = sum(job.state not in WELL_ENDED for job in results.jobs)
    if left:
        console.print(f"{left} of {len(results.jobs)} jobs are not finished; to continue: {command}", soft_wrap=True)
    sweep = results.sweep
    written = ", ".join(name for name in (sweep.results_csv.name, sweep.results_json.name, figure) if name)
    console.print(f"sweep folder: {display_path(sweep.folder)} ({written})", soft_wrap=True)


def save_sweep_figure(results: Results) -> str | None:
    """Save response.png of one swept setting, heat_map.png of two, ranking.png of more; return the name.

    seed does not count. None if no job is ranked, or no setting is swept.
    """
    from mnist_lab.viz.save import write_figure  # These import matplotlib, which a table does not need.
    from mnist_lab.viz.sweep import plot_accuracy_map, plot_ranking, plot_response

    keys = [key for key in results.varied if key != "seed"]
    if not results.ranked or not keys:
        return None
    if len(keys) == 1:
        name, figure = "response.png", plot_response(results, *keys)
    elif len(keys) == 2:
        name, figure = "heat_map.png", plot_accuracy_map(results, *keys)
    else:
        name, figure = "ranking.png", plot_ranking(results)
    write_figure(figure, results.sweep.folder / name)
    return name


def describe_best(results: Results) -> tuple[str, str]:
    """Describe the best settings: test accuracy, the command that trains them again, and the best job's run folder."""
    job = results.best_job
    assert job is not None
    tested, folder = results.entry(results.winner)[TEST_ACC], display_path(job.folder)
    if len(results.winner) == 1:
        return f"best, test accuracy {format_accuracy(**tested)}: {results.command}", f"its run folder: {folder}"
    own = f"seed={job.info['seed']}, test accuracy {job.info['metrics'][TEST_ACC]:.2%}"
    return (
        f"best, test accuracy {format_accuracy(**tested)} over {len(results.winner)} seeds: {results.command}",
        f"the best of these seeds by validation: {own}: {folder}",
    )
