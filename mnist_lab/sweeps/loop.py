"""The loop of a sweep: launch jobs, wait for them, restart those whose process died, and stop on a signal."""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_lab.errors import Interrupted, JobsFailed, LabError, UsageError, handle_signals, ignore_repeated_hangup
from mnist_lab.formatting import format_command, format_count, print_lines
from mnist_lab.runs.locks import holder_of, release_if_held_by, run_lock
from mnist_lab.runs.ranking import Results, describe_job
from mnist_lab.runs.record import DONE, STOPPED, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job
from mnist_lab.sweeps.jobs import compose_planned_job, run_job
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Launcher, Stage
from mnist_lab.sweeps.plan import Plan, set_job_folder
from mnist_lab.sweeps.process import import_torch
from mnist_lab.sweeps.progress import SweepDisplay, show_results

MAX_STARTS = 2  # A job whose process dies in each of these starts has failed.
PATIENCE = 60  # seconds for jobs to save after a signal


@contextmanager
def open_sweep(plan: Plan, jobs: Mapping[str, Sequence[str]], expected_jobs: int = 0) -> Iterator["Loop"]:
    """Open the sweep of a plan with its first jobs, display it during the block, and then show its results."""
    sweep, launcher, command = plan.sweep, plan.launcher, format_command(plan.arguments())
    with run_lock(sweep.folder):
        is_new = not sweep.exists
        Sweep.open(sweep.folder, command, plan.swept, jobs, plan.settings())
        try:
            with closing(launcher), forward_signals(sweep, launcher), SweepDisplay(sweep, launcher, expected_jobs):
                yield Loop(plan)
        except UsageError:
            if is_new and not Run.below(sweep.folder):  # The launcher has refused the jobs.
                shutil.rmtree(sweep.folder)
            raise
        finally:
            if sweep.exists:
                show_results(Results.of(sweep), command)
        if not plan.cfg.detach and any(job.state in (RunState.FAILED, *STOPPED) for job in sweep.jobs()):
            raise JobsFailed(LabError.exit_status)


class Loop:
    """Runs jobs of a sweep, batch by batch."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.launcher, self.sweep = plan, plan.launcher, plan.sweep

    def run(self, ids: Sequence[str]) -> None:
        """Start jobs and wait until all have ended, restarting those that die; with detach=true, only start them."""
        # Until a paused job continues, its record names the process that paused it.
        self.paused = {job.id: job.process for job in self.sweep.read_jobs(ids) if job.state == RunState.PAUSED}
        self.unrecorded_since: dict[str, float] = {}  # when the loop first saw that a job has ended without a record
        self.starts: Counter[str] = Counter()
        self.cancelled: list[str] = []
        if ids:
            self._start(ids)
        if self.plan.cfg.detach:
            command = format_command(["status", self.sweep.folder.name])
            print_lines(f"{format_count(len(ids), 'job')} in the queue; to see the states: {command}")
        else:
            self._wait(ids)

    def _start(self, ids: Sequence[str]) -> None:
        self.starts.update(ids)
        self.launcher.start(self.sweep, ids, partial(run_in_this_process, self.plan))

    def _wait(self, unended: Sequence[str]) -> None:
        while unended:
            self.launcher.poll()
            launched = self.launcher.jobs
            reported = [id for id in unended if launched[id].stage == Stage.ENDED]
            ended = {job.id for job in self.sweep.read_jobs(reported) if self._has_ended(job, launched[job.id])}
            unended = [id for id in unended if id not in ended]
            if unended:
                time.sleep(self.launcher.poll_seconds)
        if self.cancelled:
            names = ", ".join(self.cancelled)
            raise LabError(f"cancelled: {names}; the same command starts the jobs that are not finished")

    def _has_ended(self, job: Job, launched: LaunchedJob) -> bool:
        """Return whether a job that its launcher reports as ended is over, by its own record.

        If its process has died, the job is started once more. If that dies, too, the job has failed.
        """
        has_begun = job.process != self.paused.get(job.id)
        if (job.state in DONE and has_begun) or self.sweep.stop_file.exists():
            return True
        if launched.cancelled:
            self.cancelled.append(str(launched) or job.id)
            return True
        if job.state == RunState.INTERRUPTED:
            return True
        if job.state == RunState.RUNNING and not release_if_held_by(launched.machine, job.folder):
            # Another process runs the job, or has died on another machine, where its lock is trusted for a while.
            return not self.launcher.lock_patience
        since = self.unrecorded_since.setdefault(job.id, time.monotonic())
        if not launched.reason and time.monotonic() < since + self.launcher.record_patience:
            return False  # Its record may still arrive.
        if self.starts[job.id] == MAX_STARTS:
            self._record_death(job, launched)
            return True
        del self.unrecorded_since[job.id]
        self._start([job.id])
        return False

    def _record_death(self, job: Job, launched: LaunchedJob) -> None:
        """Record a job whose process has died as failed; if it had not begun, end the sweep."""
        end = ": ".join(filter(None, [str(launched), launched.reason])) or "no reason is known"
        if job.state == RunState.WAITING:
            self.launcher.cancel()
            results = Results.of(self.sweep)
            name = describe_job(results, next(each for each in results.jobs if each.id == job.id))
            raise LabError(f"{name}: ended before it began ({end}){explain_log(launched.log)}")
        write_job(replace(job, state=RunState.FAILED, error=f"its process died ({end})"))


def run_in_this_process(plan: Plan, id: str) -> None:
    """Run a job in the process of its sweep, composing it if an earlier start has planned it."""
    import_torch()
    record = plan.sweep.record
    if id in plan.composed:
        cfg = OmegaConf.create(set_job_folder(plan.composed[id], plan.sweep.job_folder(record, id)))
    else:
        cfg = compose_planned_job(plan.sweep, record, id)
    run_job(plan.sweep, record, id, cfg)


def explain_log(log: Path | None) -> str:
    """Return what the log of a job that has not begun says, to be appended to an error message."""
    if log is None:
        return ""
    if not log.exists():
        return f"; {log} was not written: choose a runs_dir on a file system that all machines share"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return f"; {log} ends: {next((line.strip() for line in reversed(lines) if line.strip()), 'empty')}"


@contextmanager
def forward_signals(sweep: Sweep, launcher: Launcher) -> Iterator[None]:
    """Forward Ctrl-C, SIGTERM and SIGHUP to the jobs of a sweep, and wait until they have saved.

    A job in this process handles them itself while it trains. Jobs that outlive this process continue, and their
    pending ones are cancelled, except by SIGHUP, when the terminal closes. A second signal ends the wait.
    """

    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        ignore_repeated_hangup(number)
        if received or (launcher.outlives_sweep and number == signal.SIGHUP):
            raise Interrupted(128 + number)
        received.append(number)
        sweep.stop_file.touch()
        signalled = launcher.cancel()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(holder_of(sweep.job(id).folder) for id in signalled):
            time.sleep(0.1)
        raise Interrupted(128 + number)

    try:
        with handle_signals(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), stop)):
            yield
    finally:
        if received:  # A launcher may have caught the exception.
            raise Interrupted(128 + received[0])
